"""What a protocol's fold costs per event, beside what any fold must do: parse the event's JSON."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from statistics import median
from typing import NamedTuple
from uuid import UUID

from api.protocols import PROTOCOLS
from api.protocols.fold import EventData, Place
from common.ids import EventId
from common.model.events import (
    Done,
    Event,
    Reasoning,
    Started,
    Step,
    Token,
    ToolCall,
    ToolCallDelta,
    ToolResult,
    decode_event,
    encode_event,
)
from common.model.messages import EventMessage, Run, Timings, ToolCallRequest, Usage
from common.model.run_state import Effect, FinishReason, Outcome, Priority, RunState

_STEPS = 5
_REASONING, _TOKENS, _DELTAS = 100, 800, 40
_ROUNDS = 15
_ID = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
_NOW = datetime(2026, 1, 1, tzinfo=UTC)
_ARGUMENTS = {"query": "the sea and what swims in it"}


class FoldCost(NamedTuple):
    """Microseconds of CPU per event, medians of the rounds. `parsing` is what reading the JSON alone takes."""

    protocol: str
    fold: float
    parsing: float


def fold_costs() -> list[FoldCost]:
    """Each protocol over the same run, event by event, as a client is told that reads along."""
    events = _events()
    found = []
    for name, protocol in PROTOCOLS.items():
        folds, parses = [], []
        for _ in range(_ROUNDS):
            encode = protocol(Place(_ID, named_run=True, cursor=None, run=_run())).encode
            folds.append(_microseconds(events, lambda event, encode=encode: encode((event,))))  # type: ignore[misc]
            parses.append(_microseconds(events, lambda event: decode_event(event[1])))
        found.append(FoldCost(name, median(folds), median(parses)))
    return found


def _microseconds(events: list[EventData], take: Callable[[EventData], object]) -> float:
    begun = time.process_time_ns()
    for event in events:
        take(event)
    return (time.process_time_ns() - begun) / len(events) / 1000


def _events() -> list[EventData]:
    """A run of several steps: in each the model thinks, writes, and calls a tool."""
    told: list[Event] = [
        Started(
            run_id=_ID,
            conversation_id=_ID,
            trigger_message_id=_ID,
            provider="echo",
            model="echo",
            attempt=1,
            messages=[],
        )
    ]
    for step in range(1, _STEPS + 1):
        call = ToolCallRequest(tool_call_id=f"call-{step}", name="look", arguments=_ARGUMENTS)
        told += [Reasoning(content=f"{n} fish, ") for n in range(_REASONING)]
        told += [Token(content=f"{n} fish, ") for n in range(_TOKENS)]
        told += [ToolCallDelta(tool_call_id=call.tool_call_id, name=call.name, delta='{"q') for _ in range(_DELTAS)]
        message = EventMessage(
            id=UUID(int=step),
            conversation_id=_ID,
            run_id=_ID,
            role="assistant",
            content="".join(f"{n} fish, " for n in range(_TOKENS)),
            reasoning="".join(f"{n} fish, " for n in range(_REASONING)),
            tool_calls=[call],
            created_at=_NOW,
        )
        told += [
            Step(index=step, message=message, usage=Usage()),
            ToolCall(tool_call_id=call.tool_call_id, name=call.name, arguments=_ARGUMENTS, effect=Effect.READ),
            ToolResult(
                tool_call_id=call.tool_call_id, name=call.name, result="a cod", is_error=False, outcome=Outcome.OK
            ),
        ]
    told.append(Done(usage=Usage(), step_count=_STEPS, finish_reason=FinishReason.STOP))
    return [(EventId(1, n), encode_event(event)) for n, event in enumerate(told, 1)]


def _run() -> Run:
    return Run(
        id=_ID,
        conversation_id=_ID,
        trigger_message_id=_ID,
        provider="echo",
        model="echo",
        state=RunState.RUNNING,
        priority=Priority.INTERACTIVE,
        attempt=1,
        step_count=0,
        usage=Usage(),
        timings=Timings(),
        created_by="bench",
        created_at=_NOW,
    )
