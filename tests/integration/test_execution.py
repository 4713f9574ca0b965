"""One attempt at one run, from its claim to its end, whatever the model, its provider or the user does."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

from common.config import Settings
from common.model.events import Cancelled, Discarded, Done, Error, Started, Token, ToolResult
from common.model.messages import Run
from common.model.run_state import Effect, FinishReason, Outcome, RunErrorCode, RunState
from common.store.database import Pool, workspace_transaction
from common.store.runs import select_run
from tests.support.eventually import eventually
from tests.support.probed_pool import ProbedPool
from tests.support.scripted_provider import Script, ScriptedProvider, calls, says
from tests.support.seed import Seeded, seed_run
from tests.support.worker_life import claim_execution, crash, read, read_one, told, worker_resources, write
from worker.providers.base import (
    Finish,
    ModelRequest,
    Provider,
    ProviderError,
    ProviderEvent,
    TextDelta,
    ToolCallDelta,
)
from worker.run.execution import Execution, Stop
from worker.run.turn import MAX_ANSWER_CHARACTERS
from worker.tools.base import Tool, ToolContext, tool

MODEL_CALLS = "select state from model_calls order by started_at"


@tool(effect=Effect.READ)
async def look(word: str = "") -> str:
    """Looks a word up."""
    return f"found {word}"


class BrokenProvider:
    """Raises what no provider should, in the middle of its answer."""

    name = "scripted"

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ProviderEvent, None]:
        yield TextDelta("x")
        raise KeyError("choices")

    async def close(self) -> None:
        """There is nothing to free."""


class Attempt:
    """Claims the one run that is due, and runs it when asked to."""

    def __init__(self, pool: Pool, seeded: Seeded, execution: Execution, redis: Redis, settings: Settings) -> None:
        self._pool = pool
        self.seeded = seeded
        self.execution = execution
        self._log = worker_resources(settings, pool, redis).log

    async def run(self) -> Run:
        """The run as its row has it, when its execution is over."""
        async with asyncio.timeout(10):
            await self.execution.run()
        return await self.row()

    async def row(self) -> Run:
        """The run as it is now."""
        async with workspace_transaction(self._pool, self.seeded.workspace_id) as connection:
            run = await select_run(connection, self.seeded.run.id)
        assert run is not None
        return run

    async def events(self) -> list[Any]:
        """What the log holds of it."""
        return list(await told(self._log, self.seeded.run.id))


Begin = Callable[..., Any]


@pytest.fixture
def begin(settings: Settings, pool: Pool, redis: Redis) -> Begin:
    """Seeds a run, or goes on with one, and claims it for `provider`."""

    async def begin(
        provider: Provider,
        *,
        through: Pool | None = None,
        again: Seeded | None = None,
        tools: tuple[Tool, ...] = (look,),
    ) -> Attempt:
        offered = {tool.name: tool for tool in tools}
        seeded = again or await seed_run(pool, provider="scripted", tools=tuple(offered))
        execution = await claim_execution(worker_resources(settings, through or pool, redis, provider, offered))
        return Attempt(pool, seeded, execution, redis, settings)

    return begin


async def test_cancel_while_a_model_call_is_noted_leaves_none_open(begin: Begin, pool: Pool) -> None:
    """The call that was metered and never made is cancelled, and costs nothing."""
    probed = ProbedPool(pool)

    async def cancel() -> None:
        attempt.execution.stop(Stop.CANCEL)

    probed.after("insert into model_calls", cancel)
    attempt = await begin(provider := ScriptedProvider(says("hi")), through=probed.as_pool)
    assert (await attempt.run()).state is RunState.CANCELLED
    assert await read(pool, attempt.seeded, "select state, input_tokens from model_calls") == [("cancelled", 0)]
    assert provider.requests == []


@pytest.mark.parametrize("text", ["bad \x00 text", "bad \ud83d text"], ids=["NUL", "half a surrogate"])
async def test_cancel_keeps_text_that_cannot_be_stored(begin: Begin, text: str) -> None:
    """What Postgres refuses is replaced in `partialText`; the run ends `cancelled` all the same."""
    attempt = await begin(ScriptedProvider([TextDelta(text), asyncio.Event()]))
    running = asyncio.create_task(attempt.run())
    await eventually(lambda: _has_told(attempt, Token))
    attempt.execution.stop(Stop.CANCEL)
    run = await running
    assert (run.state, run.partial_text) == (RunState.CANCELLED, "bad \ufffd text")
    assert isinstance((await attempt.events())[-1], Cancelled)


async def test_failed_run_keeps_what_it_had_said(begin: Begin) -> None:
    """The text of the step that its provider broke off is kept as `partialText`, as it is for a cancelled run."""
    run = await (await begin(ScriptedProvider([TextDelta("some words"), ProviderError("rejected", "no")]))).run()
    assert (run.state, run.partial_text) == (RunState.FAILED, "some words")


async def test_refusal_that_cannot_be_stored_ends_the_run(begin: Begin) -> None:
    """A provider's error message with NUL in it fails the run as rejected, with the message cleaned."""
    run = await (await begin(ScriptedProvider([ProviderError("rejected", "no \x00 model")]))).run()
    assert (run.state, run.attempt) == (RunState.FAILED, 1)
    assert (run.error.code, run.error.message) == (RunErrorCode.PROVIDER_REJECTED, "no \ufffd model")


DEEP = '{"word": ' * 2000 + "1" + "}" * 2000
BAD_CALLS: dict[str, tuple[str, str, Outcome]] = {
    "NUL in the name": ("lo\x00ok", "{}", Outcome.ERROR),
    "half a surrogate in the name": ("look\ud83d", "{}", Outcome.ERROR),
    "NUL in invalid arguments": ("look", '{"word": "a\x00', Outcome.ERROR),
    "half a surrogate in invalid arguments": ("look", '{"word": "\ud83d"', Outcome.ERROR),
    "NUL in an argument": ("look", '{"word": "a\\u0000b"}', Outcome.OK),
    "nested 2,000 deep": ("look", DEEP, Outcome.ERROR),
}


@pytest.mark.parametrize(("name", "arguments", "outcome"), BAD_CALLS.values(), ids=BAD_CALLS.keys())
async def test_call_that_cannot_be_stored_is_answered(
    begin: Begin, name: str, arguments: str, outcome: Outcome
) -> None:
    """Whatever the model writes into a call, it gets a result for it, and the run completes."""
    provider = ScriptedProvider(calls((name, arguments)), says("sorry"))
    attempt = await begin(provider)
    run = await attempt.run()
    assert (run.state, run.attempt, run.step_count) == (RunState.COMPLETED, 1, 2)
    assert [event.outcome for event in await attempt.events() if isinstance(event, ToolResult)] == [outcome]
    _, asked, answered = provider.requests[1].messages
    assert [call.id for call in asked.tool_calls] == [answered.tool_call_id]
    assert answered.content


async def test_call_id_that_cannot_be_stored_changes_nothing(begin: Begin) -> None:
    """A provider's own id of a call may hold NUL: the call is run as any other."""
    script: Script = [ToolCallDelta(0, "call\x00", "look", '{"word": "x"}'), Finish("tool_calls")]
    provider = ScriptedProvider(script, says("there"))
    run = await (await begin(provider)).run()
    assert run.state is RunState.COMPLETED
    assert provider.requests[1].messages[-1].content == "found x"


async def test_answer_without_an_end_in_sight_fails_the_run(begin: Begin, pool: Pool) -> None:
    """What is longer than a conversation keeps is given up, not retried, and the user is told why."""
    half = TextDelta("x" * (MAX_ANSWER_CHARACTERS // 2 + 1))
    provider = ScriptedProvider([half, half, asyncio.Event()])
    attempt = await begin(provider)
    run = await attempt.run()
    assert run.state is RunState.FAILED
    assert run.error == msgspec.structs.replace(run.error, code=RunErrorCode.PROVIDER_REJECTED, retryable=False)
    assert run.error.message == "the answer is longer than 5,000,000 characters"
    assert await read(pool, attempt.seeded, MODEL_CALLS) == [("failed",)]
    assert provider.closed_early == 1


async def test_bug_in_a_provider_ends_the_run_as_internal(begin: Begin, pool: Pool) -> None:
    """The user learns nothing of the exception, and the model call is closed."""
    attempt = await begin(BrokenProvider())
    run = await attempt.run()
    assert (run.state, run.error.code) == (RunState.FAILED, RunErrorCode.INTERNAL)
    assert "choices" not in run.error.message
    assert isinstance((await attempt.events())[-1], Error)
    assert await read(pool, attempt.seeded, MODEL_CALLS) == [("crashed",)]


async def test_run_past_its_deadline_fails(begin: Begin, pool: Pool, settings: Settings) -> None:
    """The seconds of earlier attempts count, and no model call stays open."""
    attempt = await begin(ScriptedProvider([TextDelta("some"), asyncio.Event()]))
    await write(pool, attempt.seeded, "update runs set run_seconds = $1", settings.run_deadline_s)
    run = await attempt.run()
    assert (run.state, run.error.code) == (RunState.FAILED, RunErrorCode.DEADLINE_EXCEEDED)
    assert run.error.retryable
    assert ("started",) not in await read(pool, attempt.seeded, MODEL_CALLS)


async def test_calls_left_open_by_a_crash_are_resumed_by_their_effect(begin: Begin, pool: Pool) -> None:
    """`read` and `idempotent` run again, the latter with the same key; `at_most_once` is answered as unknown."""
    ran: list[tuple[str, str]] = []
    hangs = [asyncio.Event()] * 3  # in the first attempt alone

    async def note(name: str, context: ToolContext) -> str:
        ran.append((name, context.idempotency_key))
        if hangs:
            await hangs[0].wait()
        return f"{name} again"

    @tool(effect=Effect.READ)
    async def peek(context: ToolContext) -> str:
        """May run as often as it likes."""
        return await note("peek", context)

    @tool(effect=Effect.IDEMPOTENT)
    async def book(context: ToolContext) -> str:
        """May run again with its key."""
        return await note("book", context)

    @tool(effect=Effect.AT_MOST_ONCE)
    async def pay(context: ToolContext) -> str:
        """Must not run again."""
        return await note("pay", context)

    tools = (peek, book, pay)
    first = await begin(ScriptedProvider(calls(("peek", "{}"), ("book", "{}"), ("pay", "{}"))), tools=tools)
    dying = asyncio.create_task(first.run())
    await eventually(lambda: len(ran) == 3)
    await crash(pool, first.seeded)
    first.execution.stop(Stop.LOST)
    await dying
    hangs.clear()

    provider = ScriptedProvider(says("done"))
    second = await begin(provider, again=first.seeded, tools=tools)
    run = await second.run()
    assert (run.state, run.attempt) == (RunState.COMPLETED, 2)
    keys = dict(ran[:3])
    assert sorted(ran[3:]) == sorted((name, keys[name]) for name in ("peek", "book"))
    results = [message for message in provider.requests[0].messages if message.role == "tool"]
    assert [message.content.split(":")[0] for message in results] == [
        "peek again",
        "book again",
        "The outcome of this call is unknown",
    ]
    assert await read_one(pool, first.seeded, "open_tool_calls, crashes_total") == (0, 1)
    outcomes = [event.outcome for event in await second.events() if isinstance(event, ToolResult)]
    assert sorted(outcomes) == sorted([Outcome.OK, Outcome.OK, Outcome.UNKNOWN])


async def test_execution_that_lost_its_lease_says_no_more(begin: Begin, pool: Pool) -> None:
    """It writes no end and no result, and leaves the run to whoever has it now."""
    attempt = await begin(ScriptedProvider([TextDelta("some"), asyncio.Event()]))
    running = asyncio.create_task(attempt.run())
    await eventually(lambda: _has_told(attempt, Token))
    await crash(pool, attempt.seeded)
    attempt.execution.stop(Stop.LOST)
    assert (await running).state is RunState.QUEUED
    assert [type(event) for event in await attempt.events()] == [Started, Token]


async def test_attempt_that_lacked_only_its_end_asks_the_model_no_more(begin: Begin, pool: Pool) -> None:
    """A crash between the last step and the end costs no second answer."""
    probed = ProbedPool(pool)

    async def die() -> None:
        await crash(pool, first.seeded)

    probed.after("insert into messages", lambda: _after_commit(probed, die))
    first = await begin(ScriptedProvider(says("the answer")), through=probed.as_pool)
    await first.run()
    second = await begin(provider := ScriptedProvider(), again=first.seeded)
    run = await second.run()
    assert (run.state, run.finish_reason, run.attempt) == (RunState.COMPLETED, FinishReason.STOP, 2)
    assert provider.requests == []
    started, done = (await second.events())[-2:]
    assert [message.content for message in started.messages] == ["the answer"]
    assert isinstance(done, Done)


async def test_cancelled_run_keeps_the_time_of_its_first_token(begin: Begin) -> None:
    """`firstTokenMs` is there although no step was committed."""
    attempt = await begin(ScriptedProvider([TextDelta("some"), asyncio.Event()]))
    running = asyncio.create_task(attempt.run())
    await eventually(lambda: _has_told(attempt, Token))
    attempt.execution.stop(Stop.CANCEL)
    timings = (await running).timings
    assert timings.first_token_ms is not None
    assert timings.queued_ms <= timings.first_token_ms <= timings.total_ms


async def test_provider_that_swallows_a_cancel_is_cancelled_again(begin: Begin) -> None:
    """Asking twice is enough to end what ignored the first request."""

    class Deaf(ScriptedProvider):
        async def stream(self, request: ModelRequest) -> AsyncGenerator[ProviderEvent, None]:
            yield TextDelta("x")
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                swallowed.set()
            await asyncio.Event().wait()

    swallowed = asyncio.Event()
    attempt = await begin(Deaf())
    running = asyncio.create_task(attempt.run())
    await eventually(lambda: _has_told(attempt, Token))
    attempt.execution.stop(Stop.CANCEL)
    await swallowed.wait()
    attempt.execution.stop(Stop.CANCEL)
    assert (await running).state is RunState.CANCELLED


async def test_run_that_is_cancelled_before_it_begins_asks_nothing(begin: Begin, pool: Pool) -> None:
    """A cancel between claim and opening ends the run without a request."""
    attempt = await begin(provider := ScriptedProvider(says("hi")))
    await write(pool, attempt.seeded, "update runs set cancel_requested_at = clock_timestamp()")
    assert (await attempt.run()).state is RunState.CANCELLED
    assert provider.requests == []


async def test_broken_stream_is_told_as_discarded(begin: Begin, pool: Pool) -> None:
    """A retry begins the text anew for whoever follows, and both requests are metered."""
    provider = ScriptedProvider([TextDelta("hal"), ProviderError("overloaded", "busy", retry_after_s=0)], says("whole"))
    attempt = await begin(provider)
    assert (await attempt.run()).state is RunState.COMPLETED
    assert any(isinstance(event, Discarded) for event in await attempt.events())
    assert await read(pool, attempt.seeded, MODEL_CALLS) == [("failed",), ("completed",)]


async def _has_told(attempt: Attempt, kind: type) -> bool:
    return any(isinstance(event, kind) for event in await attempt.events())


async def _after_commit(probed: ProbedPool, action: Callable[[], Any]) -> None:
    probed.after("commit", action)
