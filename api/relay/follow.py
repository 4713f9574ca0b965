"""A run's events from a cursor to its end, without a gap, over lost messages, lost logs and lost connections."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence

from api.relay.batch import Batch
from api.relay.client import Arrival, Client
from api.relay.hub import Feed, Hub, Subject
from common.eventlog.log import LogEvent
from common.ids import EventId
from common.model.events import names_messages
from common.redis import REDIS_DOWN
from common.store.database import DATABASE_DOWN

_FIRST_PAGE = 32
_LARGEST_PAGE = 512
_PAGE_BYTES = 256 * 1024


class Follower:
    """One client's way through a run.

    Replays the log after the cursor, then hands on what is published; a hole, a full queue or a new
    connection to Redis sends it back to the log. Where the log does not know the client's position, a
    `started` without an id repairs the client's state, and what the client has seen before is told again
    without ids: so ids only increase. `whole`: for a client that cannot fetch messages by their ids, every
    `started` carries them, however large they are.
    """

    def __init__(
        self, hub: Hub, subject: Subject, cursor: EventId | None, idle_s: float, *, whole: bool = False
    ) -> None:
        self._hub = hub
        self._subject = subject
        self._idle_s = idle_s
        self._whole = whole
        self._position = cursor
        """The event of the log after which to go on; None: from its first."""
        self._told = cursor
        """The greatest id that the client has seen."""
        self._reading = False
        self._page = _FIRST_PAGE
        """How many events to read at once. A reader that takes nothing holds two pages, so they are kept small."""
        self._direct: Callable[[Batch], bool] = lambda _: False
        self._anchored = False
        """Whether this reading of the log has found the position in it."""
        self.ended = False
        """Whether the run's last event has been handed out."""

    async def batches(self, direct: Callable[[Batch], bool] | None = None) -> AsyncGenerator[Sequence[Batch], None]:
        """Everything that is there, each time; nothing (an empty sequence) after `idle_s` seconds of silence.

        What merely continues the run while the next of these is waited for is offered to `direct`, in the moment in
        which it is published: what that takes (it says so) comes nowhere else.

        Ends after the run's terminal event. Closing it frees the subscription. Raises LookupError when the
        run's row is gone.
        """
        client = self._hub.join(self._subject)
        feed = self._hub.feed(self._subject)
        if direct is not None:
            self._direct = direct
            client.direct = self._offer
        try:
            while not self.ended:
                yield await self._next(client, feed)
        finally:
            self._hub.leave(self._subject, client)

    async def _next(self, client: Client, feed: Feed) -> Sequence[Batch]:
        client.break_silence()
        while True:
            if client.behind and feed.readable:
                client.catch_up()
                self._reading, self._anchored = True, False
            try:
                batches = await self._read(feed) if self._reading else self._accept(client)
            except (*REDIS_DOWN, *DATABASE_DOWN):
                _insist_on_cancellation()
                self._reading = False
                client.fall_behind()
            else:
                _insist_on_cancellation()
                if batches:
                    return batches
                if self._reading or (client.behind and feed.readable):
                    continue
            if not await client.wait(self._idle_s):
                return ()

    async def _read(self, feed: Feed) -> list[Batch]:
        """The next page of the log; once there is no more of it and the run has ended, the end from Postgres."""
        try:
            page = await self._read_page(feed)
        except REDIS_DOWN:
            if feed.terminal is None:
                raise
            page = []
        if page:
            batches = [self._tell(page)]
            self._reading = not self.ended and (len(page) >= self._page or feed.terminal is not None)
            self._page = _next_page(self._page, page)
            return batches
        self._reading = False
        return [] if feed.terminal is None else await self._tell_stored_end()

    async def _read_page(self, feed: Feed) -> list[LogEvent]:
        position = self._position
        if position is None or self._anchored:
            return await self._make_whole(await self._hub.read_after(self._subject, position, self._page))
        before = EventId(position.attempt, max(position.n - 1, 0))
        page = await self._hub.read_after(self._subject, before, self._page + 1)
        if page and page[0].id == position:
            following = await self._make_whole(page[1:])
            self._anchored = True
            return following
        return await self._repair(feed)

    async def _repair(self, feed: Feed) -> list[LogEvent]:
        """The log lacks our position: `started` without an id, then the log from its first event."""
        log = await self._hub.read_after(self._subject, None, self._page)
        first = log[0].id if log else None
        if first is None and feed.terminal is not None:
            repair = []  # The stored end brings its own `started`.
        elif first is not None and first.n == 1:
            # One that the client has seen is told without its id anyway.
            repair = [LogEvent(None, log[0].data)] if self._is_new(first) else []
        else:
            started = await self._hub.started(self._subject)
            if started is None:
                raise LookupError(f"run {self._subject.run_id} no longer exists")
            repair = [LogEvent(None, started)]
        repaired = await self._make_whole(repair + log)
        self._position, self._anchored = None, True
        return repaired

    async def _make_whole(self, events: list[LogEvent]) -> list[LogEvent]:
        """The events as this client needs them. Raises one of DATABASE_DOWN."""
        return [
            LogEvent(event.id, await self._hub.whole_started(self._subject, event.data))
            if self._whole and names_messages(event.data)
            else event
            for event in events
        ]

    async def _tell_stored_end(self) -> list[Batch]:
        end = await self._hub.stored_end(self._subject)
        if end is None:
            raise LookupError(f"run {self._subject.run_id} no longer exists")
        started = await self._make_whole([LogEvent(None, end.started)])
        return [self._tell([*started, LogEvent(end.terminal_id, end.terminal)])]

    def _accept(self, client: Client) -> list[Batch]:
        """What was published, as far as it continues what was told."""
        batches = []
        for first, last, batch, _ in client.take():
            position = self._position
            if position is not None and last <= position:
                continue
            if self._whole and names_messages(batch.events[0].data):
                client.fall_behind()  # What is read from the log is made whole on the way.
                break
            if first.n == 1 and (position is None or first.attempt > position.attempt):
                batches.append(self._tell(batch.events, batch))
            elif position is not None and first.attempt == position.attempt and first.n <= position.n + 1:
                known = position.n + 1 - first.n
                batches.append(self._tell(batch.events[known:], None if known else batch))
            else:
                client.fall_behind()
                break
        return batches

    def _offer(self, arrival: Arrival) -> bool:
        """Whether `direct` has taken the arrival, which is nothing but what follows."""
        (attempt, n), last, batch, _ = arrival
        # Where the two differ, the client is told again what it has seen, without ids.
        if self._position is not self._told or self._position != (attempt, n - 1) or n == 1:
            return False
        if batch.ends_run or not self._direct(batch):
            return False
        self._position = self._told = last
        return True

    def _tell(self, events: Sequence[LogEvent], batch: Batch | None = None) -> Batch:
        """The events as a batch (`batch`, where it holds just these), noting that the client has them."""
        last = events[-1].id
        if last is not None:
            if self._told is not None and not (events[0].id or last) > self._told:
                events = [event if self._is_new(event.id) else LogEvent(None, event.data) for event in events]
                batch = None
            self._position = last
            self._told = last if self._told is None else max(self._told, last)
        batch = batch or Batch(events)
        self.ended = batch.ends_run
        return batch

    def _is_new(self, event_id: EventId | None) -> bool:
        return event_id is None or self._told is None or event_id > self._told


def _next_page(page: int, events: Sequence[LogEvent]) -> int:
    """How many events of this size are about _PAGE_BYTES; it grows step by step, since the next may be larger."""
    size = sum(len(event.data) for event in events) // len(events)
    return max(1, min(4 * page, _PAGE_BYTES // max(size, 1), _LARGEST_PAGE))


def _insist_on_cancellation() -> None:
    """Before Python 3.12, `asyncio.wait_for` (redis-py sends with it) can swallow one that comes as it finishes."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
