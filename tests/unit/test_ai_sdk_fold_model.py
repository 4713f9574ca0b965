"""The AI SDK's fold over any log that a run can leave: attempts that break off anywhere, steps that are asked again."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.protocols import PROTOCOLS
from api.protocols.ai_sdk_history import ui_messages
from api.protocols.fold import EventData, Place
from common.ids import EventId, new_id
from common.model.events import (
    Cancelled,
    Discarded,
    Done,
    Error,
    Event,
    Reasoning,
    Started,
    Step,
    Token,
    ToolCall,
    ToolCallDelta,
    ToolResult,
    encode_event,
)
from common.model.messages import EventMessage, RunError, ToolCallRequest, Usage
from common.model.run_state import CancelReason, Effect, FinishReason, Outcome, RunErrorCode
from tests.support.ai_sdk_client import SdkClient

RUN = new_id()
ENDS: list[Event] = [
    Done(usage=Usage(), step_count=1, finish_reason=FinishReason.STOP),
    Error(error=RunError(code=RunErrorCode.INTERNAL, message="broken", retryable=True)),
    Cancelled(reason=CancelReason.USER),
]


class Log:
    """A run's log as it grows, and what Postgres has of the run."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw
        self._attempt = self._n = 0
        self._calls = 0
        self.events: list[EventData] = []
        self.committed: list[EventMessage] = []
        self.begin_attempt()

    def grow(self) -> None:
        """A few steps, and an end."""
        for index in range(1, self._draw(st.integers(0, 3)) + 1):
            self._step(index)
        self._tell(self._draw(st.sampled_from(ENDS)))

    def begin_attempt(self) -> None:
        self._attempt, self._n = self._attempt + 1, 0
        of_run: dict[str, Any] = dict.fromkeys(("run_id", "conversation_id", "trigger_message_id"), RUN)
        of_run |= {"provider": "echo", "model": "echo", "attempt": self._attempt}
        self._tell(Started(**of_run, messages=list(self.committed)))

    def _tell(self, event: Event) -> None:
        self._n += 1
        self.events.append((EventId(self._attempt, self._n), encode_event(event)))

    def _happens(self) -> bool:
        return self._draw(st.integers(0, 5)) == 5

    def _step(self, index: int) -> None:
        while (shown := self._preview()) is None:
            pass
        reasoning, text, calls = shown
        message = self._message("assistant", text, reasoning=reasoning or None, tool_calls=calls or None)
        self.committed.append(message)
        for call in calls:
            if self._happens():
                self.begin_attempt()  # Committed, and nobody was told.
                break
            self._tell(ToolCall(tool_call_id=call.tool_call_id, name="look", arguments={}, effect=Effect.READ))
        else:
            self._tell(Step(index=index, message=message, usage=Usage()))
        for call in self._draw(st.permutations(calls)):
            self._result(call)

    def _preview(self) -> tuple[str, str, list[ToolCallRequest]] | None:
        """What the model says and is then committed, or None when that breaks off in its middle."""
        reasoning = self._draw(st.lists(st.sampled_from(["hm", "so"]), max_size=2))
        words = self._draw(st.lists(st.sampled_from(["one ", "two "]), max_size=3))
        calls = []
        for _ in range(self._draw(st.integers(0, 2))):
            self._calls += 1
            calls.append(ToolCallRequest(tool_call_id=f"call_{self._calls}", name="look", arguments={}))
        pieces: list[Event] = [Reasoning(content=word) for word in reasoning]
        pieces += [Token(content=word) for word in words]
        pieces += [ToolCallDelta(tool_call_id=call.tool_call_id, name="look", delta="{") for call in calls]
        for piece in pieces:
            if self._happens():
                if self._draw(st.booleans()):
                    self._tell(Discarded(reason="overloaded"))
                else:
                    self.begin_attempt()
                return None
            self._tell(piece)
        return "".join(reasoning), "".join(words), calls

    def _result(self, call: ToolCallRequest) -> None:
        if self._happens():
            self.begin_attempt()
        is_error = self._happens()
        self.committed.append(self._message("tool", "seen", tool_call_id=call.tool_call_id, is_error=is_error))
        if self._happens():
            self.begin_attempt()  # As above.
        else:
            outcome = Outcome.ERROR if is_error else Outcome.OK
            told: dict[str, Any] = {
                "tool_call_id": call.tool_call_id,
                "name": "look",
                "result": "seen",
                "is_error": is_error,
            }
            self._tell(ToolResult(**told, outcome=outcome))

    def _message(self, role: Any, content: str, **fields: Any) -> EventMessage:
        of_run: dict[str, Any] = {
            "id": new_id(),
            "conversation_id": RUN,
            "run_id": RUN,
            "created_at": datetime.now(UTC),
        }
        return EventMessage(**of_run, role=role, content=content, **fields)


@st.composite
def logs(draw: st.DrawFn) -> Log:
    log = Log(draw)
    log.grow()
    return log


def read(log: Log, protocol: str) -> SdkClient:
    return SdkClient().read(PROTOCOLS[protocol](Place(RUN, False, None)).encode(log.events))


def stored_parts(log: Log) -> list[Any]:
    """The parts that a reload shows, without the state of text."""
    parts = [part for message in ui_messages([(1, message) for message in log.committed], []) for part in message.parts]
    return [
        {n: v for n, v in part.items() if part["type"] == "dynamic-tool" or n != "state"}
        for part in msgspec.to_builtins(parts)
    ]


@given(log=logs())
def test_new_client_shows_what_is_stored(log: Log) -> None:
    """However often the run broke off: one that knows `reset-step` ends with the message that a reload shows, and with
    what an unfinished step has said last."""
    client = read(log, "ai-sdk-7")

    stored = stored_parts(log)
    assert client.parts[: len(stored)] == stored
    assert client.ended_by == "[DONE]"


@pytest.mark.parametrize("protocol", ["ai-sdk", "ai-sdk-7"])
@given(log=logs())
def test_no_log_leads_to_what_a_client_throws_at(protocol: str, log: Log) -> None:
    """Nothing stays open, no call without an end, and every text that is stored is shown, in its order."""
    client = read(log, protocol)

    assert client.open == {}
    assert {part["state"] for part in client.parts if "state" in part} <= {"output-available", "output-error"}
    texts = iter([part["text"] for part in client.parts if "text" in part])
    assert all(part["text"] in texts for part in stored_parts(log) if "text" in part)
