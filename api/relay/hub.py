"""What all streams of a process share: one subscription per run, one poll for the silent ones, one set to
abort.
"""

import asyncio
import contextlib
from typing import NamedTuple, Protocol, Self
from uuid import UUID

import structlog
from redis.asyncio import Redis

from api.metrics import STREAMS_CUT
from api.relay.batch import Batch
from api.relay.client import Arrival, Client
from api.relay.subscriber import Subscriber
from common.eventlog.keys import live_channel
from common.eventlog.log import EventLog, LogEvent
from common.eventlog.publication import parse_publication
from common.ids import EventId
from common.redis import REDIS_DOWN
from common.store.database import DATABASE_DOWN, Pool, workspace_transaction
from common.store.run_events import StoredEnd, select_started, select_stored_end, select_whole_started
from common.store.run_schedule import poll_runs

_POLL_S = 2.0
_CONCURRENT_READS = 16
_CONCURRENT_LARGE_READS = 2
_READ_S = 3.0
_TELL_S = 1.0
STALLED_S = 20.0
"""After so long a stream whose reader takes nothing is cut."""

_log = structlog.get_logger(__name__)


class Subject(NamedTuple):
    """The run that a client follows. `terminal` is the id of its last event, where its row said that it has
    ended.
    """

    workspace_id: UUID
    run_id: UUID
    terminal: EventId | None = None


class OpenStream(Protocol):
    """A response that is being sent."""

    def abort(self) -> None:
        """Breaks the connection, so that the client cannot take it for an end."""

    def waiting_s(self, now: float) -> float:
        """For how long its reader has taken nothing of what is there, in seconds."""


class Feed:
    """One run as its clients here see it."""

    __slots__ = ("clients", "confirmed", "end_lock", "heard", "stored_end", "terminal", "whole", "whole_lock")

    def __init__(self) -> None:
        self.terminal: EventId | None = None
        self.stored_end: StoredEnd | None = None
        self.end_lock = asyncio.Lock()
        self.whole: tuple[bytes, bytes] | None = None
        """A `started` that names its messages, and what it was made; for a moment, since that may be large."""
        self.whole_lock = asyncio.Lock()
        self.clients: set[Client] = set()
        self.confirmed = False
        self.heard = True

    @property
    def readable(self) -> bool:
        """Whether the log is worth reading: what follows will be heard, or nothing will follow."""
        return self.confirmed or self.terminal is not None


class Hub:
    """Feeds the clients of this process. Enter it before the first one joins; leaving it aborts what is open."""

    def __init__(self, redis: Redis, pool: Pool, log: EventLog) -> None:
        self._pool = pool
        self._log = log
        self._feeds: dict[UUID, Feed] = {}
        self._channels: dict[bytes, Feed] = {}
        self._busy = asyncio.Event()
        self._reads = asyncio.Semaphore(_CONCURRENT_READS)
        self._large_reads = asyncio.Semaphore(_CONCURRENT_LARGE_READS)
        self._tasks: list[asyncio.Task[None]] = []
        self._subscriber = Subscriber(redis, on_message=self._deliver, on_confirmed=self._confirm, on_lost=self._lose)
        self.streams: set[OpenStream] = set()
        self.closing = False

    async def __aenter__(self) -> Self:
        self._tasks = [
            asyncio.create_task(self._subscriber.run(), name="relay subscriber"),
            asyncio.create_task(self._tick(), name="relay poll"),
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.abort_streams()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def clients(self) -> int:
        """Clients that follow a run now."""
        return sum(len(feed.clients) for feed in self._feeds.values())

    @property
    def clients_behind(self) -> int:
        """Those among them that read the log before they hear more: they could not keep up, or Redis is away."""
        return sum(client.behind for feed in self._feeds.values() for client in feed.clients)

    @property
    def slowest_reader_s(self) -> float:
        """For how long the slowest of all readers has taken nothing, in seconds."""
        now = asyncio.get_running_loop().time()
        return max((stream.waiting_s(now) for stream in self.streams), default=0.0)

    @property
    def subscriptions(self) -> int:
        """Channels that Redis publishes to this process."""
        return self._subscriber.subscriptions

    @property
    def connected(self) -> bool:
        """Whether Redis publishes to this process; false too while nobody has followed anything yet."""
        return self._subscriber.connected

    def abort_streams(self) -> None:
        """Breaks every open stream, and refuses new ones: this process is about to stop."""
        self.closing = True
        for stream in tuple(self.streams):
            stream.abort()

    def join(self, subject: Subject) -> Client:
        """A client of the run. It must `leave`, whatever happens."""
        feed = self._feeds.get(subject.run_id)
        if feed is None:
            feed = self._feeds[subject.run_id] = Feed()
            channel = live_channel(subject.run_id).encode()
            self._channels[channel] = feed
            self._subscriber.subscribe(channel)
            self._busy.set()
        feed.terminal = feed.terminal or subject.terminal
        client = Client()
        feed.clients.add(client)
        return client

    def leave(self, subject: Subject, client: Client) -> None:
        """Frees what the client held; the last one of a run frees its subscription."""
        feed = self._feeds[subject.run_id]
        feed.clients.discard(client)
        if not feed.clients:
            del self._feeds[subject.run_id]
            channel = live_channel(subject.run_id).encode()
            del self._channels[channel]
            self._subscriber.unsubscribe(channel)
            if not self._feeds:
                self._busy.clear()

    def feed(self, subject: Subject) -> Feed:
        """The feed of a client that has joined."""
        return self._feeds[subject.run_id]

    async def read_after(self, subject: Subject, after: EventId | None, limit: int) -> list[LogEvent]:
        """`EventLog.read_after`, a few at a time: after a reconnect every client reads at once.

        While Redis is known to be away nobody waits to find that out again, and until then nobody for long: the
        client makes its connections one by one.
        """
        async with self._reads, asyncio.timeout(_READ_S):
            if self._subscriber.away:
                raise ConnectionError("Redis is away")
            return await self._log.read_after(subject.run_id, after, limit)

    async def started(self, subject: Subject) -> bytes | None:
        """`started` as Postgres has it. Raises one of DATABASE_DOWN."""
        async with workspace_transaction(self._pool, subject.workspace_id) as connection:
            return await select_started(connection, subject.run_id)

    async def whole_started(self, subject: Subject, started: bytes) -> bytes:
        """`started` with the messages that it names, read once for the clients that want it together. Raises one of
        DATABASE_DOWN.
        """
        feed = self.feed(subject)
        async with feed.whole_lock:
            if feed.whole is not None and feed.whole[0] == started:
                return feed.whole[1]
            async with self._large_reads, workspace_transaction(self._pool, subject.workspace_id) as connection:
                whole = await select_whole_started(connection, started)
            feed.whole = started, whole  # Whose memory the next poll frees, at any moment.
            return whole

    async def stored_end(self, subject: Subject) -> StoredEnd | None:
        """The end of the run as Postgres has it, read once for all of its clients. Raises one of
        DATABASE_DOWN.
        """
        feed = self.feed(subject)
        async with feed.end_lock:
            if feed.stored_end is None:
                async with workspace_transaction(self._pool, subject.workspace_id) as connection:
                    feed.stored_end = await select_stored_end(connection, subject.run_id)
                if feed.stored_end is not None and not self._subscriber.away:
                    with contextlib.suppress(*REDIS_DOWN):
                        async with asyncio.timeout(_TELL_S):
                            await self._tell_log(subject.run_id, feed.stored_end)
        return feed.stored_end

    async def _tell_log(self, run_id: UUID, end: StoredEnd) -> None:
        """Appends an end that is not the owner's where whoever ended the run did not live to do it."""
        head = await self._log.head(run_id)
        if end.terminal_id.n == 2 and head is not None and head.attempt < end.terminal_id.attempt:
            await self._log.end(run_id, end.terminal_id.attempt, end.started, end.terminal)

    def _deliver(self, channel: bytes, data: bytes) -> None:
        feed = self._channels.get(channel)
        if feed is None:
            return
        feed.heard = True
        try:
            attempt, first, last, events = parse_publication(data)
        except ValueError:
            _log.warning("publication_malformed", channel=channel.decode())
            events = None
        if events is None:
            for client in feed.clients:
                client.fall_behind()
            return
        first_id = last_id = EventId(attempt, first)
        batch = [LogEvent(first_id, events[0])]
        for n in range(first + 1, last + 1):
            last_id = EventId(attempt, n)
            batch.append(LogEvent(last_id, events[n - first]))
        arrival = Arrival(first_id, last_id, Batch(batch), len(data))
        for client in feed.clients:
            client.push(arrival)

    def _confirm(self, channel: bytes) -> None:
        feed = self._channels.get(channel)
        if feed is not None:
            feed.confirmed = True
            for client in feed.clients:
                client.fall_behind()

    def _lose(self) -> None:
        for feed in self._feeds.values():
            feed.confirmed = False

    async def _tick(self) -> None:
        while True:
            await self._busy.wait()
            await asyncio.sleep(_POLL_S)
            now = asyncio.get_running_loop().time()
            for stream in tuple(self.streams):
                if stream.waiting_s(now) > STALLED_S:
                    STREAMS_CUT.inc()
                    stream.abort()
            try:
                await self._poll()
            except DATABASE_DOWN as error:
                _log.warning("relay_poll_failed", error=str(error))
            except Exception:
                # Without the poll silent streams would never hear of their end.
                _log.exception("relay_poll_broke")

    async def _poll(self) -> None:
        """Looks after the silent runs: an end of which nothing was heard, a read that failed and is due
        again.
        """
        silent = {run_id: feed for run_id, feed in self._feeds.items() if not feed.heard}
        for feed in self._feeds.values():
            feed.heard = False
            feed.whole = None
            for client in feed.clients:
                client.retry()
        if not silent:
            return
        for position in await poll_runs(self._pool, list(silent)):
            if position.terminal is not None:
                feed = silent[position.run_id]
                feed.terminal = position.terminal
                for client in feed.clients:
                    client.fall_behind()
