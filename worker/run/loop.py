"""THE loop: the model's turn, its tools, the next turn, until it calls none.

It knows a provider, tools and a journal; no SQL, no Redis, no HTTP.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import msgspec

from common.model.clean import clean, clean_json
from common.model.events import Event
from common.model.messages import AgentSettings, ToolCallRequest, Usage
from common.model.run_state import Effect, FinishReason
from common.model.steps import LedgerCall, NewStep, PlannedCall, StepOutput
from worker.providers.base import ModelRequest, Provider, ToolSpec
from worker.run.turn import BegunStep, Meter, Turn, TurnCall, TurnLimits, take_turn
from worker.tools.base import Tool

_ENDS = {
    "stop": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "content_filter": FinishReason.CONTENT_FILTER,
}
_CUT_SHORT = (FinishReason.LENGTH, FinishReason.CONTENT_FILTER)
_EXCERPT = 500


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to run, and where an earlier attempt left it: `finish_reason` is there when only the end was missing.

    `max_calls_per_step` and `max_calls`, of a run, count tool calls; 0 is no limit.
    """

    model: str
    instructions: str
    settings: AgentSettings
    tools: Mapping[str, Tool]
    max_steps: int
    limits: TurnLimits
    steps_done: int = 0
    open_calls: list[LedgerCall] = msgspec.field(default_factory=list)
    calls_made: int = 0
    max_calls_per_step: int = 0
    max_calls: int = 0
    finish_reason: FinishReason | None = None


class Journal(Meter, Protocol):
    """Where the loop tells and commits."""

    def emit(self, event: Event) -> None: ...

    async def begin_step(self, step: int) -> BegunStep: ...

    async def commit_step(self, step: NewStep) -> list[LedgerCall]: ...


async def run_loop(
    plan: Plan,
    provider: Provider,
    journal: Journal,
    run_calls: Callable[[list[LedgerCall]], Awaitable[None]],
    between_steps: Callable[[], Awaitable[None]],
) -> FinishReason:
    """Runs to the end of the agent's work, or to its step limit.

    Raises ProviderError for a model that does not answer, and whatever `between_steps` raises to stop it there.
    """
    calls, finish_reason, step = plan.open_calls, plan.finish_reason, plan.steps_done
    calls_made = plan.calls_made
    while True:
        if calls:
            await run_calls(calls)
        if finish_reason is not None:
            return finish_reason
        if step >= plan.max_steps:
            return FinishReason.STEP_LIMIT
        await between_steps()
        step += 1
        turn = await _ask(plan, provider, journal, step)
        new = _new_step(turn, step, plan, calls_made)
        calls_made += len(new.calls)
        calls, finish_reason = await journal.commit_step(new), new.finish_reason


async def _ask(plan: Plan, provider: Provider, journal: Journal, step: int) -> Turn:
    begun = await journal.begin_step(step)
    request = ModelRequest(
        model=plan.model,
        instructions=plan.instructions,
        messages=begun.history,
        tools=[
            ToolSpec(name=tool.name, description=tool.description, parameters=tool.parameters)
            for tool in plan.tools.values()
        ],
        settings=plan.settings,
    )
    return await take_turn(
        provider,
        request,
        step=step,
        begun=begun,
        emit=journal.emit,
        meter=journal,
        limits=plan.limits,
    )


def _new_step(turn: Turn, index: int, plan: Plan, calls_made: int) -> NewStep:
    """An answer that was cut short ends the run: the arguments of its calls may be cut short as well."""
    end = _ENDS.get(turn.stop or "", FinishReason.OTHER)
    planned = [] if end in _CUT_SHORT else [_planned(call, plan.tools) for call in turn.calls]
    calls = [_within_limits(call, place, plan, calls_made) for place, call in enumerate(planned, 1)]
    return NewStep(
        index=index,
        model_call_id=turn.model_call_id,
        output=StepOutput(
            content=turn.text.joined,
            reasoning=turn.reasoning.joined or None,
            tool_calls=[ToolCallRequest(tool_call_id=c.id, name=c.name, arguments=c.arguments) for c in calls],
            provider_data=turn.provider_data,
            usage=turn.usage or Usage(estimated=True),
        ),
        calls=calls,
        finish_reason=None if calls else end,
        first_token_age_s=turn.first_token_age_s,
    )


def _planned(call: TurnCall, tools: Mapping[str, Tool]) -> PlannedCall:
    """The call, cleaned once, so that event, ledger and history say the same."""
    arguments, invalid = _read_arguments(call.text.joined)
    tool = tools.get(call.name)
    return PlannedCall(
        id=call.id,
        name=clean(call.name),
        arguments=arguments,
        invalid=None if invalid is None else clean(invalid),
        provider_call_id=None if call.provider_call_id is None else clean(call.provider_call_id),
        effect=Effect.READ if tool is None else tool.effect,
    )


def _within_limits(call: PlannedCall, place: int, plan: Plan, calls_made: int) -> PlannedCall:
    """The call; one too many is not run, and the model is told so."""
    if plan.max_calls_per_step and place > plan.max_calls_per_step:
        why = f"Not run: {plan.max_calls_per_step} tools can be called at once. Call the others in the next step."
    elif plan.max_calls and calls_made + place > plan.max_calls:
        why = f"Not run: the {plan.max_calls} tool calls that one run may make have been made. Answer without tools."
    else:
        return call
    return msgspec.structs.replace(call, invalid=why)


def _read_arguments(text: str) -> tuple[dict[str, Any], str | None]:
    """The call's arguments; `{}` and what is wrong with them when they are no JSON object. No text means none."""
    try:
        arguments = msgspec.json.decode(text) if text.strip() else {}
        if not isinstance(arguments, dict):
            return {}, f"The arguments must be a JSON object: {text[:_EXCERPT]}"
        return clean_json(arguments), None
    except (RecursionError, ValueError) as error:  # msgspec's DecodeError is a ValueError
        return {}, f"The arguments are not valid JSON ({error}): {text[:_EXCERPT]}"
