"""Everything that one run says, over the real log: order, repair, ends, limits."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from redis.asyncio import Redis

from common.errors import LeaseLost
from common.eventlog.keys import head_key
from common.eventlog.log import AppendResult, Batch, EventLog
from common.ids import EventId, new_id
from common.model.events import Cancelled, Discarded, Event, Reasoning, Started, Token, ToolResult, decode_event
from common.model.run_state import CancelReason
from tests.support.event_log import Viewer, committed, done_event, result_event, started_event, step_event
from tests.support.eventually import eventually
from worker.run import sink as sink_module
from worker.run.sink import Sink, TrimAfter


class Postgres:
    """Answers `raise_attempt`: counts up, unless told to fail or to refuse."""

    def __init__(self) -> None:
        self.attempt = 1
        self.failures: list[Exception] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked = 0

    async def raise_attempt(self, attempt: int) -> int:
        self.asked += 1
        assert attempt == self.attempt
        await self.gate.wait()
        if self.failures:
            raise self.failures.pop()
        self.attempt += 1
        return self.attempt


class Bench:
    """A run's sink with everything around it."""

    def __init__(self, log: EventLog) -> None:
        self.log = log
        self.run_id = new_id()
        self.postgres = Postgres()
        self.losses = 0
        self.sinks: list[Sink] = []

    def open(self, trim_after: TrimAfter | None = None, started: Started | None = None) -> Sink:
        sink = Sink(
            self.log,
            started or started_event(self.run_id),
            lock=asyncio.Lock(),
            raise_attempt=self.postgres.raise_attempt,
            on_lost=self._on_lost,
            trim_after=trim_after or TrimAfter(),
        )
        sink.open()
        self.sinks.append(sink)
        return sink

    async def ids(self) -> list[str]:
        return [str(event.id) for event in await self.log.read_after(self.run_id, None, 1000)]

    async def events(self) -> list[Event]:
        return [decode_event(event.data) for event in await self.log.read_after(self.run_id, None, 1000)]

    async def seen(self, expected: Callable[[Viewer], bool]) -> Viewer:
        """What a new client sees, once it is as expected."""

        async def look() -> Viewer | None:
            viewer = Viewer()
            await viewer.read_all(self.log, self.run_id)
            return viewer if expected(viewer) else None

        viewer: Viewer | None = await eventually(look)
        assert viewer is not None
        return viewer

    def _on_lost(self) -> None:
        self.losses += 1


@pytest.fixture
async def bench(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    """A run to speak for; retries come quickly."""
    monkeypatch.setattr(sink_module, "_FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(sink_module, "_LONGEST_PAUSE_S", 0.01)
    bench = Bench(EventLog(redis, 60))
    yield bench
    for sink in bench.sinks:
        await sink.close()


async def _end(sink: Sink, closed: list[str] | None = None) -> EventId:
    async with sink.lock:
        event_id = sink.seal_end([result_event(call, "closed") for call in closed or []], done_event())
        sink.release_end()
    return event_id


async def test_sink_tells_a_whole_run_in_order(bench: Bench) -> None:
    """Events come out as they were said, numbered without a hole from `started` to the end."""
    sink = bench.open()
    step, message = step_event(1, "hello", ("a",))
    result, result_message = result_event("a", "42")
    sink.emit(Token(content="hel"))
    await bench.seen(lambda viewer: viewer.text == "hel")
    sink.emit(Token(content="lo"))
    sink.emit_committed(step, message)
    sink.emit_committed(result, result_message)
    end_id = await _end(sink)
    assert await sink.drain(5)
    types = [type(event).__name__ for event in await bench.events()]
    assert types == ["Started", "Token", "Token", "Step", "ToolResult", "Done"]
    assert end_id == EventId(1, 6) == await bench.log.head(bench.run_id)
    viewer = await bench.seen(lambda viewer: viewer.terminal is not None)
    assert viewer.messages == committed([message, result_message])


async def test_sink_joins_what_comes_while_an_append_is_in_flight(bench: Bench) -> None:
    """A thousand tokens said at once are a few events, and not a character is missing."""
    sink = bench.open()
    for _ in range(1000):
        sink.emit(Token(content="x"))
    await bench.seen(lambda viewer: viewer.text == "x" * 1000)
    assert len(await bench.ids()) <= 3


async def test_sink_stops_when_a_newer_attempt_has_begun(bench: Bench) -> None:
    """A fenced sink says so once and never speaks again."""
    sink = bench.open()
    await eventually(bench.ids)
    assert await bench.log.append(bench.run_id, Batch(2, 1, (b'{"type":"started"}',))) is AppendResult.OK
    sink.emit(Token(content="zombie"))
    await eventually(lambda: bench.losses == 1)
    sink.emit(Token(content="again"))
    assert await bench.ids() == ["1-1", "2-1"]
    assert bench.postgres.asked == 0


async def test_sink_begins_a_new_attempt_when_the_log_was_lost(bench: Bench, redis: Redis) -> None:
    """After a FLUSHALL clients get `started` with all that is committed, and what the unfinished step has shown."""
    sink = bench.open()
    step, message = step_event(1, "first", ("a", "b"))
    sink.emit_committed(step, message)
    second, second_message = result_event("b", "2")
    sink.emit_committed(second, second_message)
    sink.emit(Token(content="half a "))
    await bench.seen(lambda viewer: viewer.text == "half a ")
    await redis.flushall()
    sink.emit(Token(content="word"))
    viewer = await bench.seen(lambda viewer: viewer.text == "half a word")
    assert viewer.messages == committed([message, second_message])
    assert (await bench.ids())[0] == "2-1"
    assert sink.attempt == 2
    first, first_message = result_event("a", "1")
    sink.emit_committed(first, first_message)
    await redis.delete(head_key(bench.run_id))
    sink.emit(Token(content="!"))
    in_call_order = committed([message, first_message, second_message])
    await bench.seen(lambda viewer: viewer.messages == in_call_order and viewer.text == "half a word!")
    assert sink.partial_text == "half a word!"


async def test_sink_shows_nothing_of_a_discarded_step_again(bench: Bench, redis: Redis) -> None:
    """What was discarded is not part of the repair."""
    sink = bench.open()
    sink.emit(Token(content="wrong"))
    sink.emit(Discarded(reason="provider_error"))
    await bench.seen(lambda viewer: viewer.cursor is not None and viewer.text == "")
    await redis.flushall()
    sink.emit(Token(content="right"))
    await bench.seen(lambda viewer: viewer.text == "right")
    assert sink.partial_text == "right"


async def test_sink_neither_loses_nor_doubles_what_is_said_during_the_repair(bench: Bench, redis: Redis) -> None:
    """Tokens that come while Postgres raises the attempt are shown exactly once; a commit has to wait."""
    sink = bench.open()
    await eventually(bench.ids)
    await redis.flushall()
    bench.postgres.gate.clear()
    sink.emit(Token(content="a"))
    await eventually(lambda: bench.postgres.asked)
    assert sink.lock.locked()
    sink.emit(Token(content="b"))
    bench.postgres.gate.set()
    async with sink.lock:
        sink.emit(Token(content="c"))
    await bench.seen(lambda viewer: viewer.text == "abc")


async def test_sink_repeats_the_raise_while_postgres_is_away(bench: Bench, redis: Redis) -> None:
    """A Postgres that is down delays the repair and does not end the run."""
    sink = bench.open()
    await eventually(bench.ids)
    await redis.flushall()
    bench.postgres.failures = [OSError("away"), TimeoutError()]
    sink.emit(Token(content="a"))
    await bench.seen(lambda viewer: viewer.text == "a")
    assert bench.postgres.asked == 3
    assert bench.losses == 0


@pytest.mark.parametrize("refusal", [LeaseLost(), RuntimeError("a bug")], ids=["lease lost", "bug"])
async def test_sink_that_may_not_raise_the_attempt_is_lost(bench: Bench, redis: Redis, refusal: Exception) -> None:
    """A refused repair means that the run is somebody else's; one that fails otherwise gives it up as well."""
    sink = bench.open()
    await eventually(bench.ids)
    await redis.flushall()
    bench.postgres.failures = [refusal]
    sink.emit(Token(content="a"))
    await eventually(lambda: bench.losses == 1)
    assert not sink.lock.locked()
    assert await bench.ids() == []


async def test_sink_holds_the_end_until_it_is_released(bench: Bench) -> None:
    """What came before the end goes out at once; the end itself only after its commit."""
    sink = bench.open()
    sink.emit(Token(content="last"))
    end_id = sink.seal_end([result_event("a", "cancelled")], done_event())
    await bench.seen(lambda viewer: viewer.text == "last")
    assert not await sink.drain(0.02)
    assert (await bench.ids())[-1] == "1-2"
    sink.release_end()
    sink.release_end()
    assert await sink.drain(5)
    assert (await bench.ids())[2:] == ["1-3", str(end_id)] == ["1-3", "1-4"]


async def test_sink_seals_the_end_anew_after_a_rollback(bench: Bench) -> None:
    """The same end gets the same id; another one replaces it, as long as it was not released."""
    sink = bench.open()
    sink.emit(Token(content="x"))
    results = [result_event("a", "cancelled"), result_event("b", "cancelled")]
    assert sink.seal_end(results, done_event()) == sink.seal_end(results, done_event()) == EventId(1, 5)
    cancelled = Cancelled(reason=CancelReason.USER)
    assert sink.seal_end(results[:1], cancelled) == EventId(1, 4)
    sink.release_end()
    assert await sink.drain(5)
    assert (await bench.events())[-1] == cancelled
    assert len(await bench.ids()) == 4


async def test_sink_refuses_what_cannot_be_true_after_the_end(bench: Bench) -> None:
    """Nothing is said after the end, no released end is changed, none is released that was not sealed."""
    sink = bench.open()
    with pytest.raises(RuntimeError):
        sink.release_end()
    await _end(sink)
    with pytest.raises(RuntimeError):
        sink.emit(Token(content="x"))
    with pytest.raises(RuntimeError):
        sink.seal_end([], done_event())


@pytest.mark.parametrize("released", [False, True])
async def test_sink_after_the_end_leaves_a_lost_log_alone(bench: Bench, redis: Redis, released: bool) -> None:
    """An id that Postgres may know changes no more: after a loss the relay tells the end."""
    sink = bench.open()
    await eventually(bench.ids)
    await redis.flushall()
    async with sink.lock:
        sink.emit(Token(content="x"))
        end_id = sink.seal_end([], done_event())
        if released:
            sink.release_end()
    assert not await sink.drain(5 if released else 0.05)
    sink.release_end()
    assert not await sink.drain(5)
    assert end_id == EventId(1, 3)
    assert (bench.postgres.asked, bench.losses) == (0, 0)
    assert await bench.ids() == []


async def test_sink_waits_for_a_redis_that_is_down(bench: Bench, redis: Redis) -> None:
    """While Redis refuses, nothing is lost and nobody waits; afterwards the same batches go in."""
    sink = bench.open()
    await eventually(bench.ids)
    await redis.config_set("maxmemory", 1)
    try:
        sink.emit(Token(content="a"))
        await _end(sink)
        assert not await sink.drain(0.05)
    finally:
        await redis.config_set("maxmemory", 0)
    assert await sink.drain(5)
    assert await bench.ids() == ["1-1", "1-2", "1-3"]


async def test_sink_without_redis_holds_what_was_said_and_not_how(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many pieces come while Redis is away, few wait, and none is missing when it is back."""
    append = bench.log.append
    monkeypatch.setattr(bench.log, "append", _away)
    sink = bench.open()
    most = 0
    for number in range(100_000):
        sink.emit(Token(content=f"{number} "))
        if number % 1000 == 0:
            sink.emit(Reasoning(content="hm "))
        most = max(most, len(sink._pending))
    assert most < 100_000 / 10
    monkeypatch.setattr(bench.log, "append", append)
    text = "".join(f"{number} " for number in range(100_000))
    viewer = await bench.seen(lambda viewer: viewer.text == text)
    assert viewer.shown["reasoning"] == "hm " * 100
    assert bench.postgres.attempt == 1, "nothing was lost, so no attempt has begun"


async def _away(*_: object, **__: object) -> AppendResult:
    raise ConnectionError


async def test_sink_suspended_starts_no_append(bench: Bench) -> None:
    """Past its local deadline a run says nothing; once the lease is certain again, it says all of it."""
    sink = bench.open()
    await eventually(bench.ids)
    sink.suspend()
    sink.emit(Token(content="a"))
    end_id = await _end(sink)
    assert not await sink.drain(0.05)
    assert await bench.ids() == ["1-1"]
    sink.resume()
    assert await sink.drain(5)
    assert (await bench.ids())[-1] == str(end_id)


@pytest.mark.parametrize("trim_after", [TrimAfter(events=5), TrimAfter(bytes=150)], ids=["events", "bytes"])
async def test_sink_trims_a_long_stream(bench: Bench, trim_after: TrimAfter) -> None:
    """Past the limit a new attempt begins, the stream is cut before it, and clients miss nothing."""
    sink = bench.open(trim_after)
    watching = Viewer()
    for index in range(20):
        sink.emit(Token(content=f"{index} "))
        said = "".join(f"{said} " for said in range(index + 1))
        await bench.seen(lambda viewer, said=said: viewer.text == said)  # type: ignore[misc]
        await watching.read_all(bench.log, bench.run_id)
    assert sink.attempt > 2
    assert (await bench.ids())[0] == f"{sink.attempt}-1"
    await eventually(lambda: sink.partial_text == said)
    await watching.read_all(bench.log, bench.run_id)
    assert watching.text == said


async def test_sink_names_messages_by_id_when_they_are_too_large(bench: Bench) -> None:
    """A `started` beyond 1 MB carries ids, and the run goes on."""
    large = [step_event(index, "x" * 400_000)[1] for index in range(3)]
    sink = bench.open(started=started_event(bench.run_id, 1, large))
    await _end(sink)
    assert await sink.drain(5)
    opening = (await bench.events())[0]
    assert isinstance(opening, Started)
    assert opening.messages is None
    assert opening.message_ids == [message.id for message in large]


async def test_sink_cuts_large_tool_results(bench: Bench, redis: Redis) -> None:
    """An event has the first 64 KB of a result, marked; the message in `started` has all of it."""
    sink = bench.open()
    step, message = step_event(1, "", ("a",))
    sink.emit_committed(step, message)
    result, result_message = result_event("a", "x" * 100_000)
    sink.emit_committed(result, result_message)
    await bench.seen(lambda viewer: len(viewer.messages) == 2)
    told = (await bench.events())[-1]
    assert isinstance(told, ToolResult)
    assert (len(told.result), told.truncated) == (64 * 1024, True)
    await redis.flushall()
    sink.emit(Token(content="next"))
    await bench.seen(lambda viewer: viewer.messages[-1:] == [("a", "x" * 100_000)])


async def test_sink_closed_leaves_no_task_behind(bench: Bench, redis: Redis) -> None:
    """Closing frees everything at once, in whatever state the sink is."""
    before = asyncio.all_tasks()
    sink = bench.open()
    await sink.close()
    sink = bench.open()
    await eventually(bench.ids)
    await redis.flushall()
    bench.postgres.gate.clear()
    sink.emit(Token(content="a"))
    await eventually(lambda: bench.postgres.asked)
    await sink.close()
    assert not sink.lock.locked()
    await eventually(lambda: asyncio.all_tasks() <= before)
    assert not await sink.drain(1)
