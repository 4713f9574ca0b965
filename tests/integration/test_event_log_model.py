"""The event log under every fault that it is built for: real sinks and scripts, a real Valkey, a client's fold.

Hypothesis drives owners and zombies, ends by others, trims, lost logs, cut tails, lost replies, refused
connections and appends that are delayed; an in-memory truth stands for Postgres. More examples:
`EVENT_LOG_EXAMPLES=2000 pytest tests/integration/test_event_log_model.py`; they are the same in every run.
"""

import asyncio
import os
from collections import Counter, deque
from collections.abc import Awaitable
from typing import TypeVar, cast
from uuid import UUID

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from redis.asyncio import Redis
from redis.exceptions import ConnectionError

from common.errors import LeaseLost
from common.eventlog.keys import events_key, head_key
from common.eventlog.log import AppendResult, Batch, EventLog, LogEvent
from common.ids import EventId, new_id
from common.model.events import (
    Cancelled,
    Discarded,
    Reasoning,
    Started,
    Terminal,
    Token,
    ToolCallDelta,
    encode_event,
    encode_started,
)
from common.model.messages import EventMessage
from common.model.run_state import CancelReason
from common.redis import open_redis
from tests.support.event_log import Viewer, committed, done_event, result_event, started_event, step_event
from worker.run import sink as sink_module
from worker.run.sink import Sink, TrimAfter

EXAMPLES = int(os.environ.get("EVENT_LOG_EXAMPLES", "200"))
T = TypeVar("T")


class Truth:
    """What Postgres would hold of the run."""

    def __init__(self) -> None:
        self.attempt = 0
        self.messages: list[EventMessage] = []
        self.terminal_id: EventId | None = None
        self.terminal: bytes | None = None

    def owns(self, attempt: int) -> bool:
        """The check of every fenced write."""
        return self.attempt == attempt and self.terminal is None


class Record:
    """What all owners' logs saw together; `violations` because an assertion inside a sink's task would be lost."""

    def __init__(self) -> None:
        self.named: dict[EventId, bytes] = {}
        self.newest_in_memory = 0
        self.lost: set[str] = set()
        self.violations: list[str] = []
        self.happened: Counter[str] = Counter()

    def check_names(self, batch: Batch) -> None:
        """An id never names anything else, however often it is sent, whatever was lost."""
        for n, data in enumerate(batch.events, batch.first_n):
            if self.named.setdefault(EventId(batch.attempt, n), data) != data:
                self.violations.append(f"{batch.attempt}-{n} names two events")

    def check_fence(self, batch: Batch, result: AppendResult) -> None:
        """While Redis keeps its memory of it, nothing of an older attempt gets in after a newer one."""
        self.happened[result.name] += 1
        if result is AppendResult.OK:
            if batch.attempt < self.newest_in_memory:
                self.violations.append(f"attempt {batch.attempt} got in after {self.newest_in_memory}")
            self.newest_in_memory = batch.attempt
            self.lost.clear()

    def forget(self, *what: str) -> None:
        """Redis lost a key. One of the two is enough to keep older attempts out."""
        self.happened[f"lost {' and '.join(what)}"] += 1
        self.lost.update(what)
        if self.lost == {"events", "head"}:
            self.newest_in_memory = 0


class FaultyLog(EventLog):
    """The real log behind a bad network: appends may be delayed, refused, or lose their reply."""

    def __init__(self, redis: Redis, real: EventLog, record: Record) -> None:
        super().__init__(redis, stream_ttl_s=600)
        # All share one log, and so one connection: replies are seen in the order in which the script ran.
        self.real = real
        self.record = record
        self.faults: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.delays_replies = False

    async def append(self, run_id: UUID, batch: Batch, *, trim: bool = False) -> AppendResult:
        self.record.check_names(batch)
        if not self.delays_replies:
            await self.gate.wait()
        fault = self.faults.pop() if self.faults else "none"
        self.record.happened[fault] += 1
        if fault == "refused":
            raise ConnectionError(fault)
        result = await self.real.append(run_id, batch, trim=trim)
        self.record.check_fence(batch, result)
        await self.gate.wait()
        if fault == "reply lost":
            raise ConnectionError(fault)
        return result


class Owner:
    """A worker that holds the run, or believes so."""

    def __init__(self, log: FaultyLog, run_id: UUID, truth: Truth, trim_after: TrimAfter) -> None:
        self.log = log
        self.shown: dict[str, str] = {}
        self.database_faults = 0
        self._truth = truth
        self.sink = Sink(
            log,
            started_event(run_id, truth.attempt, truth.messages),
            lock=asyncio.Lock(),
            raise_attempt=self._raise_attempt,
            on_lost=self._on_lost,
            trim_after=trim_after,
        )
        self.sink.open()

    @property
    def is_idle(self) -> bool:
        """Nothing is left to append, or nothing can be."""
        sink = self.sink
        held_up = not self.log.gate.is_set() or not sink._allowed.is_set()
        stopped = sink._appending is None or sink._appending.done()
        return stopped or held_up or not (sink._pending or sink._sealed or sink.lock.locked())

    def say(self, what: str, piece: str) -> None:
        """Emits a piece of text, reasoning or a call's arguments."""
        match what:
            case "text":
                self.sink.emit(Token(content=piece))
            case "reasoning":
                self.sink.emit(Reasoning(content=piece))
            case _:
                self.sink.emit(ToolCallDelta(tool_call_id=what, name="tool", delta=piece))
        self.shown[what] = self.shown.get(what, "") + piece

    async def _raise_attempt(self, attempt: int) -> int:
        if self.database_faults:
            self.database_faults -= 1
            raise OSError("Postgres is away")
        if not self._truth.owns(attempt):
            raise LeaseLost
        self._truth.attempt += 1
        self.log.record.happened["raised"] += 1
        return self._truth.attempt

    def _on_lost(self) -> None:
        self.log.record.happened["lost"] += 1
        if self._truth.owns(self.sink.attempt):
            self.log.record.violations.append(f"attempt {self.sink.attempt} was told that it lost its own run")


class EventLogModel(RuleBasedStateMachine):
    """One run from its first claim to its end, and the clients that watch it."""

    def __init__(self, runner: asyncio.Runner, redis: Redis, happened: Counter[str]) -> None:
        super().__init__()
        self._runner = runner
        self._redis = redis
        self.run_id = new_id()
        self.truth = Truth()
        self.record = Record()
        self.record.happened = happened
        self.real = EventLog(redis, stream_ttl_s=600)
        self.others = FaultyLog(redis, self.real, self.record)
        self.owners: list[Owner] = []
        self.viewers = [Viewer()]
        self.trim_after = TrimAfter()
        self.saved: deque[tuple[bytes | None, bytes | None]] = deque([(None, None)], maxlen=4)
        self.end_after = 0
        self.pieces = 0
        self.steps = 0
        self.open_calls: list[str] = []

    # The run -------------------------------------------------------------------------------------------------

    @initialize(trim_events=st.sampled_from([3, 6, 100_000]), end_after=st.sampled_from([1, 10, 25]))
    def begin(self, trim_events: int, end_after: int) -> None:
        self.trim_after = TrimAfter(events=trim_events)
        self.end_after = end_after
        self.claim(delayed=False)

    @precondition(lambda self: self.is_running)
    @rule(delayed=st.booleans())
    def claim(self, delayed: bool) -> None:
        """Another worker takes the run; the one before goes on as a zombie."""

        async def claim() -> None:
            self.truth.attempt += 1
            log = FaultyLog(self._redis, self.real, self.record)
            if delayed:
                log.gate.clear()
            self.owners.append(Owner(log, self.run_id, self.truth, self.trim_after))
            for forgotten in self.owners[:-3]:
                await forgotten.sink.close()
            self.owners = self.owners[-3:]

        self.do(claim())

    @precondition(lambda self: self.is_running)
    @rule(what=st.sampled_from(["text", "text", "reasoning", "call_1", "call_2"]), repeat=st.integers(1, 3))
    def say(self, what: str, repeat: int) -> None:
        for _ in range(repeat):
            self.owners[-1].say(what, self.new_piece())

    @precondition(lambda self: len(self.owners) > 1)
    @rule(which=st.integers(0, 1), what=st.sampled_from(["text", "call_1"]))
    def zombie_says(self, which: int, what: str) -> None:
        zombies = self.owners[:-1]
        zombies[which % len(zombies)].say(what, f"zombie {self.new_piece()}")

    @precondition(lambda self: self.is_running)
    @rule()
    def discard(self) -> None:
        self.owners[-1].sink.emit(Discarded(reason="provider_error"))
        self.owners[-1].shown.clear()

    @precondition(lambda self: self.is_running)
    @rule(calls=st.integers(0, 2))
    def commit_step(self, calls: int) -> None:
        async def commit(owner: Owner) -> None:
            async with owner.sink.lock:
                if not self.truth.owns(owner.sink.attempt):
                    return
                self.steps += 1
                self.open_calls = [f"{self.steps}_{call}" for call in range(calls)]
                event, message = step_event(self.steps, self.new_piece(), tuple(self.open_calls))
                self.truth.messages.append(message)
                owner.sink.emit_committed(event, message)
                owner.shown.clear()

        self.do(commit(self.owners[-1]))

    @precondition(lambda self: self.is_running and self.open_calls)
    @rule()
    def commit_result(self) -> None:
        async def commit(owner: Owner) -> None:
            async with owner.sink.lock:
                if self.truth.owns(owner.sink.attempt):
                    event, message = result_event(self.open_calls.pop(0), self.new_piece())
                    self.truth.messages.append(message)
                    owner.sink.emit_committed(event, message)

        self.do(commit(self.owners[-1]))

    @precondition(lambda self: self.is_running and self.may_end)
    @rule(rolled_back=st.booleans(), pause=st.booleans())
    def end_by_owner(self, rolled_back: bool, pause: bool) -> None:
        async def end(owner: Owner) -> None:
            async with owner.sink.lock:
                if not self.truth.owns(owner.sink.attempt):
                    return
                if rolled_back:
                    owner.sink.seal_end([], Cancelled(reason=CancelReason.USER))
                closed = [result_event(call, self.new_piece()) for call in self.open_calls]
                terminal_id = owner.sink.seal_end(closed, done_event(self.steps))
                assert terminal_id == owner.sink.seal_end(closed, done_event(self.steps))
                if pause:  # what is on its way arrives in the middle of the transaction
                    owner.log.gate.set()
                    await asyncio.sleep(0.002)
                self.settle(terminal_id, done_event(self.steps), [message for _, message in closed])
                owner.sink.release_end()

        self.do(end(self.owners[-1]))

    @precondition(lambda self: self.is_running and self.may_end)
    @rule(told=st.booleans())
    def end_by_another(self, told: bool) -> None:
        self.truth.attempt += 1
        closed = [result_event(call, self.new_piece())[1] for call in self.open_calls]
        self.settle(EventId(self.truth.attempt, 2), Cancelled(reason=CancelReason.USER), closed)
        if told:
            self.tell_end()

    @precondition(lambda self: self.truth.terminal_id and self.truth.terminal_id.n == 2)
    @rule()
    def tell_end(self) -> None:
        """A relay that finds the run ended by another says so, as often as it likes."""
        assert self.truth.terminal_id is not None
        assert self.truth.terminal is not None
        started = encode_started(self.started())
        self.do(self.others.end(self.run_id, self.truth.terminal_id.attempt, started, self.truth.terminal))

    # Faults --------------------------------------------------------------------------------------------------

    @rule()
    def flush(self) -> None:
        self.record.forget("events", "head")
        self.do(self._redis.flushall())

    @rule()
    def delete_stream(self) -> None:
        self.record.forget("events")
        self.do(self._redis.delete(events_key(self.run_id)))

    @rule()
    def delete_head(self) -> None:
        self.record.forget("head")
        self.do(self._redis.delete(head_key(self.run_id)))

    @rule(steps=st.integers(1, 4))
    def cut_tail(self, steps: int) -> None:
        """Redis comes back as it was some steps ago: an append-only file without its last second."""
        saved = self.saved[-min(steps, len(self.saved))]

        async def restore() -> None:
            async with self._redis.pipeline(transaction=True) as together:
                together.delete(*self.keys)
                for key, data in zip(self.keys, saved, strict=True):
                    if data is not None:
                        together.restore(key, 0, data)
                await together.execute()

        self.record.forget("events", "head")
        self.do(restore())

    @precondition(lambda self: self.owners)
    @rule(which=st.integers(0, 2), faults=st.lists(st.sampled_from(["refused", "reply lost"]), min_size=1, max_size=3))
    def break_network(self, which: int, faults: list[str]) -> None:
        self.owners[which % len(self.owners)].log.faults = faults

    @precondition(lambda self: self.owners)
    @rule(which=st.integers(0, 2), delays=st.booleans(), replies=st.booleans())
    def delay_or_deliver(self, which: int, delays: bool, replies: bool) -> None:
        """From now on appends, or their replies, are on their way until this is called again."""
        log = self.owners[which % len(self.owners)].log
        log.delays_replies = replies
        (log.gate.clear if delays else log.gate.set)()
        self.do(self.nothing())

    @rule()
    def deliver_all(self) -> None:
        for owner in self.owners:
            owner.log.gate.set()
        self.do(self.nothing())

    @precondition(lambda self: self.owners)
    @rule(which=st.integers(0, 2), suspended=st.booleans())
    def suspend_or_resume(self, which: int, suspended: bool) -> None:
        sink = self.owners[which % len(self.owners)].sink
        (sink.suspend if suspended else sink.resume)()
        self.do(self.nothing())

    @precondition(lambda self: self.owners)
    @rule()
    def break_database(self) -> None:
        self.owners[-1].database_faults = 2

    # Clients -------------------------------------------------------------------------------------------------

    @rule(which=st.integers(0, 3), limit=st.integers(1, 10))
    def read(self, which: int, limit: int) -> None:
        viewer = self.viewers[which % len(self.viewers)]
        if viewer.terminal is None:
            self.do(viewer.read(self.others, self.run_id, limit))

    @rule(which=st.integers(0, 3), resumes=st.booleans())
    def join(self, which: int, resumes: bool) -> None:
        """A client comes: for the first time, or with what another has seen."""
        self.viewers.append(self.viewers[which % len(self.viewers)].copy() if resumes else Viewer())
        self.viewers = self.viewers[-4:]

    @precondition(lambda self: self.is_running)
    @rule()
    def catch_up(self) -> None:
        """Once the owner has said something over a network that works, every client has exactly what is true."""
        owner = self.owners[-1]
        self.repair(owner)
        owner.say("text", self.new_piece())
        self.do(self.nothing())
        for viewer in [*self.viewers, Viewer()]:
            self.do(viewer.read_all(self.others, self.run_id))
            assert viewer.messages == committed(self.truth.messages)
            assert viewer.shown == owner.shown

    # The end -------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        try:
            if self.owners:
                self.finish()
        finally:
            self._runner.run(self.close())

    def finish(self) -> None:
        """Ends the run if it has not ended; then every client must come to the same."""
        for owner in self.owners:
            self.repair(owner)
        if self.is_running:
            self.end_by_another(told=True)
        self.do(self.nothing())
        for viewer in [*self.viewers, Viewer()]:
            self.do(viewer.read_all(self.others, self.run_id))
            if viewer.terminal is None:
                self.tell_from_postgres(viewer)
            assert viewer.terminal == self.truth.terminal
            assert viewer.messages == committed(self.truth.messages)
            assert viewer.cursor == self.truth.terminal_id

    def tell_from_postgres(self, viewer: Viewer) -> None:
        """What a relay does when the end is not in the stream: a `started` without an id, then the end."""
        assert self.truth.terminal_id is not None
        assert self.truth.terminal is not None
        self.record.happened["told from postgres"] += 1
        assert viewer.cursor is None or viewer.cursor < self.truth.terminal_id
        viewer.take(LogEvent(None, encode_started(self.started())))
        viewer.cursor = EventId(self.truth.terminal_id.attempt, self.truth.terminal_id.n - 1)
        viewer.take(LogEvent(self.truth.terminal_id, self.truth.terminal))

    # Machinery -----------------------------------------------------------------------------------------------

    @property
    def is_running(self) -> bool:
        return self.truth.terminal is None

    @property
    def may_end(self) -> bool:
        return self.pieces >= self.end_after

    @property
    def keys(self) -> tuple[str, str]:
        return events_key(self.run_id), head_key(self.run_id)

    def do(self, work: Awaitable[T]) -> T:
        async def within_time() -> T:
            async with asyncio.timeout(10):
                await self.save()
                result = await work
                await self.quiet()
                return result

        result = self._runner.run(within_time())
        assert not self.record.violations
        return result

    async def save(self) -> None:
        events, head = self.keys
        async with self._redis.pipeline(transaction=True) as together:
            together.dump(events)
            together.dump(head)
            saved_events, saved_head = await together.execute()
        if self.saved[-1] != (saved_events, saved_head):
            self.saved.append((saved_events, saved_head))

    async def nothing(self) -> None:
        """Gives everybody the time to do what they can."""

    async def quiet(self) -> None:
        """Waits until every sink has said what it can: so an example goes the same way each time."""
        while not all(owner.is_idle for owner in self.owners):
            await asyncio.sleep(0.0002)

    async def close(self) -> None:
        for owner in self.owners:
            await owner.sink.close()

    def repair(self, owner: Owner) -> None:
        owner.log.faults = []
        owner.log.gate.set()
        owner.sink.resume()

    def started(self) -> Started:
        return started_event(self.run_id, self.truth.attempt, self.truth.messages)

    def settle(self, terminal_id: EventId, terminal: Terminal, closed: list[EventMessage]) -> None:
        self.truth.messages += closed
        self.truth.terminal_id = terminal_id
        self.truth.terminal = encode_event(terminal)

    def new_piece(self) -> str:
        self.pieces += 1
        return f"{self.pieces} "


@pytest.mark.timeout(1800)  # as many examples as somebody asks for
def test_event_log_under_every_fault_is_the_same_for_all(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is lost, cut, delayed, repeated or said by zombies: ids only increase, nothing is missing or doubled."""
    monkeypatch.setattr(sink_module, "_FIRST_PAUSE_S", 0.0002)
    monkeypatch.setattr(sink_module, "_COMPACT_AT", 2)
    happened: Counter[str] = Counter()
    with asyncio.Runner() as runner:
        redis = open_redis(redis_url)
        try:
            run_state_machine_as_test(
                cast("type[RuleBasedStateMachine]", lambda: EventLogModel(runner, redis, happened)),
                settings=settings(
                    max_examples=EXAMPLES,
                    stateful_step_count=40,
                    derandomize=True,
                    database=None,
                    print_blob=True,
                    suppress_health_check=list(HealthCheck),
                ),
            )
        finally:
            runner.run(redis.aclose())
    for expected in ("OK", "FENCED", "LOST", "raised", "lost", "refused", "reply lost", "told from postgres"):
        assert happened[expected], f"the examples never came to {expected!r}: {happened}"
