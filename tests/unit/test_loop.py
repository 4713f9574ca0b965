"""The loop alone: a script of the model's turns in, events and commits out."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest

from common.ids import new_id
from common.model.events import Discarded, Event, Reasoning, Token, ToolCallDelta
from common.model.messages import AgentSettings, Usage
from common.model.run_state import Effect, FinishReason
from common.model.steps import CallEnd, LedgerCall, NewStep
from tests.support.scripted_provider import Script, ScriptedProvider, calls, says, thinks
from worker.providers.base import Finish, HistoryMessage, ProviderError, TextDelta, UsageReport
from worker.run.loop import Plan, run_loop
from worker.run.retry_budget import RetryBudget
from worker.run.turn import BegunStep, TurnLimits
from worker.tools.base import Tool, tool


@tool(effect=Effect.READ)
async def look(word: str) -> str:
    """Looks a word up."""
    return word.upper()


class NotedJournal:
    """Keeps in memory what the loop emits, meters and commits."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.steps: list[NewStep] = []
        self.metered: list[tuple[str, Usage, str | None]] = []
        self.begun = 0

    def emit(self, event: Event) -> None:
        self.events.append(event)

    async def begin_step(self, step: int) -> BegunStep:
        return BegunStep([HistoryMessage(role="user", content="hello")], await self.begin_model_call(step, 2), 2)

    async def begin_model_call(self, step: int, input_tokens: int) -> UUID:
        self.begun += 1
        return new_id()

    async def end_model_call(self, end: CallEnd) -> None:
        self.metered.append((end.state, end.usage, end.error_code))

    async def commit_step(self, step: NewStep) -> list[LedgerCall]:
        self.steps.append(step)
        run_id, message_id = new_id(), new_id()
        return [
            LedgerCall(
                id=call.id,
                run_id=run_id,
                message_id=message_id,
                step=step.index,
                index=index,
                name=call.name,
                arguments=call.arguments,
                invalid=call.invalid,
                provider_call_id=call.provider_call_id,
                effect=call.effect,
                state="pending",
            )
            for index, call in enumerate(step.calls)
        ]


class Played:
    """One play of the loop and what came of it."""

    def __init__(self, *scripts: Script) -> None:
        self.provider = ScriptedProvider(*scripts)
        self.journal = NotedJournal()
        self.ran: list[LedgerCall] = []

    async def run(self, between_steps: Callable[[], None] = lambda: None, **plan: Any) -> FinishReason:
        async def pause() -> None:
            between_steps()

        return await run_loop(_plan(**plan), self.provider, self.journal, self._runner(), pause)

    def _runner(self) -> Callable[[list[LedgerCall]], Awaitable[None]]:
        async def run_calls(requested: list[LedgerCall]) -> None:
            self.ran.extend(requested)

        return run_calls


def _plan(**changes: Any) -> Plan:
    tools: dict[str, Tool] = {"look": look}
    values: dict[str, Any] = {
        "model": "m",
        "instructions": "be brief",
        "settings": AgentSettings(),
        "tools": tools,
        "max_steps": 20,
        "limits": _limits(),
    }
    return Plan(**(values | changes))


def _limits(*, first_token_s: float = 5, retries: int = 2, budget: int = 10) -> TurnLimits:
    shared = RetryBudget("scripted", size=budget, ratio=1, refill_s=3600)
    return TurnLimits(first_token_s=first_token_s, silence_s=5, retries=retries, budget=shared)


async def test_answer_without_calls_is_one_step_and_the_end() -> None:
    """Tokens are told as they come, the step holds their text, and the run stops there."""
    played = Played([*thinks("hm"), *says("Hel", "lo")])
    assert await played.run() is FinishReason.STOP
    assert played.journal.events == [Reasoning(content="hm"), Token(content="Hel"), Token(content="lo")]
    (step,) = played.journal.steps
    assert (step.output.content, step.output.reasoning) == ("Hello", "hm")
    assert (step.output.usage.input_tokens, step.output.usage.output_tokens) == (10, 5)
    assert step.finish_reason is FinishReason.STOP


async def test_calls_are_run_and_the_model_is_asked_again() -> None:
    """A step with calls commits them with their parsed arguments and effects, runs them, and goes on."""
    played = Played(calls(("look", '{"word": "a"}'), ("look", '{"word": "b"}')), says("done"))
    assert await played.run() is FinishReason.STOP
    assert [(call.name, call.arguments, call.effect) for call in played.ran] == [
        ("look", {"word": "a"}, Effect.READ),
        ("look", {"word": "b"}, Effect.READ),
    ]
    assert [step.finish_reason for step in played.journal.steps] == [None, FinishReason.STOP]


async def test_call_has_one_id_from_its_first_piece_to_its_commit() -> None:
    """The id is ours, new for each call, whatever the provider calls it, and the same in deltas and commit."""
    played = Played(calls(("look", '{"word": "a"}')), calls(("look", '{"word": "b"}')), says("done"))
    await played.run()
    deltas = [event for event in played.journal.events if isinstance(event, ToolCallDelta)]
    ids = [call.id for call in played.ran]
    assert len(set(ids)) == 2, "the provider used call_0 twice"
    assert [delta.tool_call_id for delta in deltas] == [ids[0], ids[0], ids[1], ids[1]]
    assert "".join(delta.delta for delta in deltas[:2]) == '{"word": "a"}'


@pytest.mark.parametrize(
    ("arguments", "complaint"), [('{"word": ', "not valid JSON"), ('["a"]', "must be a JSON object")]
)
async def test_invalid_arguments_are_answered_not_raised(arguments: str, complaint: str) -> None:
    """Arguments that are no JSON object become a call that says what is wrong with it."""
    played = Played(calls(("look", arguments)), says("sorry"))
    assert await played.run() is FinishReason.STOP
    (call,) = played.ran
    assert call.arguments == {}
    assert complaint in (call.invalid or "")


async def test_no_arguments_mean_an_empty_object() -> None:
    """Providers send nothing at all for a call without arguments."""
    played = Played(calls(("look", "")), says("ok"))
    await played.run()
    assert (played.ran[0].arguments, played.ran[0].invalid) == ({}, None)


async def test_step_limit_ends_the_run_after_its_last_results() -> None:
    """A model that never stops calling is stopped, and its last calls are run all the same."""
    played = Played(*[calls(("look", '{"word": "a"}'))] * 3)
    assert await played.run(max_steps=3) is FinishReason.STEP_LIMIT
    assert len(played.ran) == 3


@pytest.mark.parametrize(
    ("reason", "finish"), [("length", FinishReason.LENGTH), ("content_filter", FinishReason.CONTENT_FILTER)]
)
async def test_answer_that_was_cut_short_runs_none_of_its_calls(reason: Any, finish: FinishReason) -> None:
    """A call in an answer that was cut may be half a call."""
    script = calls(("look", '{"word": "a"}'))[:-1]
    played = Played([*script, Finish(reason)])
    assert await played.run() is finish
    assert played.ran == []
    assert played.journal.steps[0].output.tool_calls == []


async def test_later_attempt_goes_on_where_the_last_one_was() -> None:
    """Open calls are run first; steps that are committed are not asked again."""
    played = Played(calls(("look", '{"word": "a"}')), says("x"))
    await played.run()
    resumed = Played(says("end"))
    assert await resumed.run(steps_done=1, open_calls=played.ran) is FinishReason.STOP
    assert resumed.ran == played.ran
    assert [step.index for step in resumed.journal.steps] == [2]


async def test_attempt_that_only_lacks_its_end_asks_nothing() -> None:
    """A crash between the last step and the end must not sample the answer again."""
    played = Played()
    assert await played.run(steps_done=1, finish_reason=FinishReason.LENGTH) is FinishReason.LENGTH
    assert played.provider.requests == []


async def test_passing_failure_is_retried_and_what_it_showed_discarded() -> None:
    """A stream that breaks is asked again within the attempt; clients are told to forget its tokens."""
    broken: Script = [TextDelta("Hal"), ProviderError("overloaded", "busy", retry_after_s=0)]
    played = Played(broken, says("Hello"))
    assert await played.run() is FinishReason.STOP
    assert played.journal.events == [
        Token(content="Hal"),
        Discarded(reason="overloaded"),
        Token(content="Hello"),
    ]
    assert played.journal.begun == 2
    ((state, usage, code),) = played.journal.metered
    assert (state, code, usage.estimated) == ("failed", "overloaded", True)


async def test_failure_before_the_first_token_discards_nothing() -> None:
    """There is nothing to forget, and nothing to pay."""
    played = Played([ProviderError("server", "500", retry_after_s=0)], says("Hello"))
    await played.run()
    assert played.journal.events == [Token(content="Hello")]
    assert [usage for _, usage, _ in played.journal.metered] == [Usage(estimated=True)]


async def test_retries_are_bounded() -> None:
    """After two retries the error is the run's."""
    failure: Script = [ProviderError("server", "500", retry_after_s=0)]
    played = Played(*[failure] * 3)
    with pytest.raises(ProviderError):
        await played.run()
    assert len(played.provider.requests) == 3


async def test_spent_budget_fails_the_run_at_once() -> None:
    """A failure that nobody may retry any more is the run's: as retryable as it was, metered, and saying why."""
    limits = _limits(budget=1)
    broken: Script = [TextDelta("Hal"), ProviderError("overloaded", "p is overloaded", status=529, retry_after_s=0)]
    played = Played(broken, broken)
    with pytest.raises(ProviderError) as caught:
        await played.run(limits=limits)
    assert (caught.value.kind, caught.value.status, caught.value.retryable) == ("overloaded", 529, True)
    assert caught.value.message == ("p is overloaded; it is not asked again, since too many requests to it are failing")
    assert [(state, code) for state, _, code in played.journal.metered] == [("failed", "overloaded")] * 2
    another = Played(broken)
    with pytest.raises(ProviderError):
        await another.run(limits=limits)
    assert len(another.provider.requests) == 1


async def test_whole_answer_pays_the_budget_back() -> None:
    """A refused request, or one that broke, pays nothing; the answer after it does."""
    limits = _limits(budget=1)
    failure: Script = [ProviderError("server", "500", retry_after_s=0)]
    await Played(failure, says("Hello")).run(limits=limits)
    played = Played(failure, failure)
    with pytest.raises(ProviderError, match="too many"):
        await played.run(limits=limits)
    assert len(played.provider.requests) == 2


async def test_pause_that_is_too_long_is_not_waited_for() -> None:
    """A provider that asks for an hour is not asked a minute later, nor does its run wait an hour; no retry is paid."""
    limits = _limits(budget=1)
    played = Played([ProviderError("rate_limited", "p is limiting", status=429, retry_after_s=3600)])
    with pytest.raises(ProviderError) as caught:
        await played.run(limits=limits)
    assert (caught.value.message, caught.value.retryable) == ("p is limiting; it asks to wait for 3600 s", True)
    assert limits.budget.take()


async def test_refused_request_is_not_retried() -> None:
    """What is wrong with the request stays wrong."""
    played = Played([ProviderError("rejected", "bad request", status=400)])
    with pytest.raises(ProviderError):
        await played.run()
    assert len(played.provider.requests) == 1


async def test_truncated_stream_is_no_step() -> None:
    """A stream that ends without saying so is asked again, never committed."""
    played = Played([TextDelta("Hal")], says("Hello"))
    await played.run()
    assert [step.output.content for step in played.journal.steps] == ["Hello"]


async def test_silent_provider_is_given_up() -> None:
    """A provider that sends nothing within its time is closed and asked again; it may have read what it was sent."""
    played = Played([asyncio.Event()], says("Hello"))
    await played.run(limits=_limits(first_token_s=0.01, retries=1))
    assert played.provider.closed_early == 1
    ((state, usage, code),) = played.journal.metered
    assert (state, code, usage.estimated) == ("failed", "timeout", True)
    assert (usage.input_tokens > 0, usage.output_tokens) == (True, 0)


async def test_unbelievable_figures_are_bounded() -> None:
    """What a provider claims can be summed up, whatever it claims: a run that cannot be would never end."""
    claimed = Usage(input_tokens=2**62, output_tokens=-5, cached_input_tokens=2**64, estimated=False)
    played = Played([TextDelta("Hello"), UsageReport(claimed), Finish("stop")])
    await played.run()
    [step] = played.journal.steps
    assert step.output.usage == Usage(input_tokens=10**12, output_tokens=0, cached_input_tokens=10**12)


async def test_cancel_closes_the_stream_and_meters_what_was_said() -> None:
    """A cancelled call is metered: figures of the provider where there are any, else an estimate."""
    reached = asyncio.Event()

    class Watching(NotedJournal):
        def emit(self, event: Event) -> None:
            super().emit(event)
            reached.set()

    played = Played([UsageReport(Usage(input_tokens=70)), TextDelta("four" * 10), asyncio.Event()])
    played.journal = Watching()
    task = asyncio.create_task(played.run())
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert played.provider.closed_early == 1
    ((state, usage, _),) = played.journal.metered
    assert (state, usage.input_tokens, usage.output_tokens, usage.estimated) == ("cancelled", 70, 10, True)


async def test_worker_that_leaves_stops_between_two_steps() -> None:
    """The check before a step may raise; the step before it is committed with its results."""

    class Leaving(Exception):
        pass

    played = Played(calls(("look", '{"word": "a"}')))

    def leave_after_first() -> None:
        if played.journal.steps:
            raise Leaving

    with pytest.raises(Leaving):
        await played.run(leave_after_first)
    assert len(played.ran) == 1


async def test_calls_beyond_a_steps_limit_are_answered_unrun() -> None:
    """The first ones run; the model is told of the others, and the next step begins anew."""
    step = calls(*[("look", '{"word": "x"}')] * 3)
    played = Played(step, step, says("done"))
    assert await played.run(max_calls_per_step=2) is FinishReason.STOP
    assert [call.invalid is None for call in played.ran] == [True, True, False] * 2
    assert "2 tools can be called at once" in (played.ran[2].invalid or "")


async def test_calls_beyond_a_runs_limit_are_answered_unrun() -> None:
    """All of its steps count, also those of earlier attempts; the model may still answer."""
    step = calls(*[("look", '{"word": "x"}')] * 2)
    played = Played(step, step, says("done"))
    assert await played.run(max_calls=4, calls_made=1) is FinishReason.STOP
    assert [call.invalid is None for call in played.ran] == [True, True, True, False]
