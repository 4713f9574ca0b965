"""Everything that one run says: numbered, sealed in batches, appended in order, repaired when it was lost.

`emit` never waits, and no commit waits for Redis: one task per run appends, one batch at a time, and what
arrives meanwhile is the next batch. A sealed batch is sent again, unchanged, until the log has answered.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

import msgspec
import structlog

from common.errors import LeaseLost
from common.eventlog.log import AppendResult, Batch, EventLog
from common.failpoints import failpoint
from common.ids import EventId
from common.model.events import Discarded, Event, Started, Step, Terminal, ToolResult, encode_started
from common.model.messages import EventMessage
from common.redis import REDIS_DOWN
from common.store.database import DATABASE_DOWN
from worker.metrics import EVENTS
from worker.run.pieces import Piece, UnfinishedStep, compact
from worker.run.sealing import cut_result, insert_in_call_order, take_batch

_log = structlog.get_logger(__name__)

_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 1.0
_COMPACT_AT = 1000
_CHARACTERS_PER_EVENT = 100


class TrimAfter(NamedTuple):
    """How much may follow a `started` before the owner begins a new attempt and drops what is before it."""

    events: int = 100_000
    bytes: int = 16 * 1024 * 1024


_TRIM_AFTER = TrimAfter()


class _Sealed(NamedTuple):
    batch: Batch
    trim: bool


class Sink:
    """What the owner of one attempt tells the world. It stops for good when the lease is lost.

    `lock` is held by the run around every fenced commit together with its emits, and by the sink while it
    raises the attempt, so that neither sees the other half done.
    """

    def __init__(
        self,
        log: EventLog,
        started: Started,
        *,
        lock: asyncio.Lock,
        raise_attempt: Callable[[int], Awaitable[int]],
        on_lost: Callable[[], None],
        trim_after: TrimAfter = _TRIM_AFTER,
    ) -> None:
        """`started` tells this attempt's number and the messages that the run has committed so far.

        `raise_attempt` takes the current attempt, raises it in Postgres under our own lease and returns the
        new one; it raises LeaseLost when refused, one of DATABASE_DOWN when it may be tried again. `on_lost`
        is called at most once, when a newer attempt is known to have begun.
        """
        self.lock = lock
        self._log = log
        self._started = started
        self._raise_attempt = raise_attempt
        self._on_lost = on_lost
        self._trim_after = trim_after
        self._attempt = started.attempt
        self._last = 0
        self._messages = list(started.messages or [])
        self._unfinished = UnfinishedStep()
        self._pending: deque[Event] = deque()
        self._compact_at = _COMPACT_AT
        self._sealed: deque[_Sealed] = deque()
        self._held: list[_Sealed] = []
        self._last_before_end: int | None = None
        self._released = False
        self._stopped = False
        self._events_since_started = 0
        self._bytes_since_started = 0
        self._something_to_do = asyncio.Event()
        self._allowed = asyncio.Event()
        self._allowed.set()
        self._appending: asyncio.Task[None] | None = None

    @property
    def attempt(self) -> int:
        """The attempt that is ours now. It changes only while the sink holds `lock`."""
        return self._attempt

    @property
    def partial_text(self) -> str:
        """The text that the unfinished step has shown so far."""
        return self._unfinished.text

    def open(self) -> None:
        """Seals `started` as this attempt's first event and begins to append."""
        self._seal_opening(trim=False)
        self._appending = asyncio.create_task(self._append_until_stopped())

    def emit(self, event: Event) -> None:
        """Tells what needs no commit, or is part of one that `emit_committed` completes. Never waits."""
        if isinstance(event, Piece):
            self._unfinished.add(event)
        elif isinstance(event, Discarded):
            self._unfinished.clear()
        self._push(event)

    def emit_committed(self, event: Step | ToolResult, message: EventMessage) -> None:
        """Tells a commit; every later `started` carries `message`. Call it under the `lock` of the commit."""
        if isinstance(event, Step):
            self._unfinished.clear()
            self._messages.append(message)
            self._push(event)
        else:
            insert_in_call_order(self._messages, message)
            self._push(cut_result(event))

    def seal_end(self, closed: Sequence[tuple[ToolResult, EventMessage]], terminal: Terminal) -> EventId:
        """Numbers the last events for good and returns the terminal one's id; they wait for `release_end`.

        Call it under `lock`, in the transaction that found the run still ours, and again when that one is
        repeated: to find the run ours a second time means that the first was rolled back, so its numbers
        never left the process. Nothing may be emitted afterwards, and the attempt is raised no more.
        """
        if self._released:
            raise RuntimeError("the end was released: others may know its ids")
        if self._last_before_end is None:
            self._seal_pending()
            self._last_before_end = self._last
        self._last = self._last_before_end
        self._pending.extend(cut_result(result) for result, _ in closed)
        self._pending.append(terminal)
        self._held.clear()
        while self._pending:
            self._held.append(self._number(take_batch(self._pending)))
        return EventId(self._attempt, self._last)

    def release_end(self) -> None:
        """The end is committed: append it."""
        if self._last_before_end is None:
            raise RuntimeError("there is no sealed end to release")
        if not self._released:
            self._released = True
            self._sealed.extend(self._held)
            self._something_to_do.set()

    async def drain(self, timeout_s: float) -> bool:
        """Whether all up to the released end is in the log; False when it cannot be, or not in time."""
        if self._appending is not None:
            await asyncio.wait({self._appending}, timeout=timeout_s)
        return self._released and not self._sealed

    def suspend(self) -> None:
        """Starts no append until `resume`: the lease may be somebody else's."""
        self._allowed.clear()

    def resume(self) -> None:
        """The lease is certain again."""
        self._allowed.set()

    async def close(self) -> None:
        """Stops appending, whatever is left unsaid."""
        self._stopped = True
        self._pending.clear()
        if self._appending is not None:
            self._appending.cancel()
            await asyncio.wait({self._appending})

    def _push(self, event: Event) -> None:
        if self._last_before_end is not None:
            raise RuntimeError("nothing is emitted after the end")
        if not self._stopped:
            self._pending.append(event)
            if len(self._pending) > self._compact_at:
                self._compact()
            self._something_to_do.set()

    def _compact(self) -> None:
        """Nothing waits as single events while Redis is away: what a run holds is bounded by what it has said.

        The next time is the later the more there is, so that all of it is not copied again and again.
        """
        characters = compact(self._pending)
        self._compact_at = _COMPACT_AT + 2 * len(self._pending) + characters // _CHARACTERS_PER_EVENT

    async def _append_until_stopped(self) -> None:
        try:
            await self._append_all()
        except Exception:
            # Without its sink a run would go on unseen; as lost, it is taken up again by another attempt.
            _log.exception("sink_failed", run_id=str(self._started.run_id), attempt=self._attempt)
            self._lose()

    async def _append_all(self) -> None:
        while (sealed := await self._next_sealed()) is not None:
            result = await self._append(sealed)
            if result is AppendResult.OK:
                EVENTS.inc(len(self._sealed.popleft().batch.events))
                if self._is_trim_due() and not await self._begin_attempt(trim=True):
                    return
            elif result is AppendResult.FENCED:
                self._lose()
                return
            elif not await self._begin_attempt(trim=False):
                return

    async def _next_sealed(self) -> _Sealed | None:
        """The batch to append next; None once the released end is appended."""
        while True:
            if self._sealed:
                return self._sealed[0]
            if self._released:
                return None
            if self._pending:
                self._sealed.append(self._number(take_batch(self._pending)))
            else:
                self._something_to_do.clear()
                await self._something_to_do.wait()

    async def _append(self, sealed: _Sealed) -> AppendResult:
        pause_s = _FIRST_PAUSE_S
        if self._released and len(self._sealed) == 1:
            await failpoint("end.before_append")
        while True:
            await self._allowed.wait()
            try:
                result = await self._log.append(self._started.run_id, sealed.batch, trim=sealed.trim)
                await failpoint("append.after")
                return result
            except REDIS_DOWN as error:
                if pause_s == _FIRST_PAUSE_S:  # once per outage and run
                    _log.warning("append_repeated", run_id=str(self._started.run_id), error=repr(error))
                pause_s = await _pause(pause_s)
                await failpoint("append.retry")

    async def _begin_attempt(self, *, trim: bool) -> bool:
        """Replaces what the log has of this run by a new attempt's `started`; False when that is refused."""
        async with self.lock:
            if self._last_before_end is not None:
                return trim  # no id may change any more; after a loss, whoever reads Postgres tells the end
            try:
                self._attempt = await self._raise_attempt_persistently()
            except LeaseLost:
                self._lose()
                return False
            self._seal_opening(trim=trim)
            return True

    async def _raise_attempt_persistently(self) -> int:
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                return await self._raise_attempt(self._attempt)
            except DATABASE_DOWN as error:
                if pause_s == _FIRST_PAUSE_S:
                    _log.warning("raise_repeated", run_id=str(self._started.run_id), error=repr(error))
                pause_s = await _pause(pause_s)

    def _seal_opening(self, *, trim: bool) -> None:
        """Drops what is unsent, and seals `started` with what the unfinished step has shown.

        There is no await in here: what was emitted before is shown again, what comes afterwards follows it.
        """
        self._sealed.clear()
        self._pending.clear()
        self._last = 0
        self._pending.extend(self._unfinished.pieces())
        started = msgspec.structs.replace(self._started, attempt=self._attempt, messages=self._messages)
        opening = take_batch(self._pending, encode_started(started))
        self._sealed.append(self._number(opening)._replace(trim=trim))
        self._seal_pending()
        self._events_since_started = self._bytes_since_started = 0
        self._something_to_do.set()

    def _seal_pending(self) -> None:
        while self._pending:
            self._sealed.append(self._number(take_batch(self._pending)))

    def _number(self, events: tuple[bytes, ...]) -> _Sealed:
        batch = Batch(self._attempt, self._last + 1, events)
        self._last = batch.last_n
        self._events_since_started += len(events)
        self._bytes_since_started += sum(map(len, events))
        return _Sealed(batch, trim=False)

    def _is_trim_due(self) -> bool:
        return (
            self._events_since_started >= self._trim_after.events or self._bytes_since_started >= self._trim_after.bytes
        )

    def _lose(self) -> None:
        self._stopped = True
        self._pending.clear()
        if not self._released:
            self._on_lost()


async def _pause(pause_s: float) -> float:
    """Waits so long; returns how long to wait next time."""
    await asyncio.sleep(pause_s)
    return min(pause_s * 2, _LONGEST_PAUSE_S)
