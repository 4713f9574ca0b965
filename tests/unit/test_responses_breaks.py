"""Runs that break anywhere, folded into OpenAI's Responses: whatever happens, the stream fits together."""

from datetime import UTC, datetime
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from api.protocols.fold import EventData
from api.protocols.response_objects import response_of
from common.ids import EventId, new_tool_call_id
from common.model.events import (
    Cancelled,
    Discarded,
    Done,
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
from common.model.messages import EventMessage, ToolCallRequest, Usage
from common.model.run_state import CancelReason, Effect, FinishReason, Outcome, RunState
from tests.support.golden_responses import RUN, fold, run_row

_BORN = datetime(2026, 1, 1, tzinfo=UTC)
_TEXT = st.text("ab ", max_size=6)


class Life:
    """A run as its worker tells it, while what Hypothesis draws interrupts it."""

    def __init__(self, data: st.DataObject) -> None:
        self.events: list[EventData] = []
        self.messages: list[EventMessage] = []
        self.said = ""
        """What the unfinished step has said in its current try."""
        self._data = data
        self._attempt = 0
        self._n = 0
        self.begin_attempt()

    def begin_attempt(self) -> None:
        self._attempt += 1
        self._n = 0
        self.said = ""
        self._tell(self._started())

    def step(self, index: int) -> None:
        """Tries that are given up, then one that is committed; its results may come in another attempt."""
        reasoning, text = self._data.draw(_TEXT), self._data.draw(_TEXT)
        count = self._data.draw(st.integers(0, 2))
        while self._data.draw(st.booleans()):
            self._try(reasoning, self._data.draw(_TEXT), count)
            self.interrupt()
        calls = self._try(reasoning, text, count)
        message = self._message("assistant", text, reasoning=reasoning or None, tool_calls=calls or None)
        self.messages.append(message)
        if self._data.draw(st.booleans()):
            self._interrupt_attempt()
        else:
            for call in calls:
                self._tell(
                    ToolCall(tool_call_id=call.tool_call_id, name="f", arguments=call.arguments, effect=Effect.READ)
                )
            self._tell(Step(index=index, message=message, usage=Usage()))
        self.said = ""
        for call in calls:
            self._result(call)

    def interrupt(self) -> None:
        """The step is asked again: by the same attempt, or by another one."""
        if self._data.draw(st.booleans()):
            self._tell(Discarded(reason="overloaded"))
            self.said = ""
        else:
            self._interrupt_attempt()

    def cut_short(self) -> None:
        """Tries of which none comes to its end."""
        while True:
            self._try(self._data.draw(_TEXT), self._data.draw(_TEXT), self._data.draw(st.integers(0, 1)))
            if not self._data.draw(st.booleans()):
                break
            self.interrupt()

    def end(self, event: Event) -> None:
        self._tell(event)

    def _interrupt_attempt(self) -> None:
        if self._data.draw(st.booleans()):  # A client that was connected meanwhile is repaired.
            self.events.append((None, encode_event(self._started())))
        self.begin_attempt()

    def _try(self, reasoning: str, text: str, count: int) -> list[ToolCallRequest]:
        self.said = ""
        for piece in self._pieces(reasoning):
            self._tell(Reasoning(content=piece))
        for piece in self._pieces(text):
            self.said += piece
            self._tell(Token(content=piece))
        calls = [ToolCallRequest(tool_call_id=new_tool_call_id(), name="f", arguments={"n": n}) for n in range(count)]
        for call in calls:
            self._tell(ToolCallDelta(tool_call_id=call.tool_call_id, name="f", delta='{"n"'))
        return calls

    def _pieces(self, text: str) -> list[str]:
        at = self._data.draw(st.integers(0, len(text)))
        return [piece for piece in (text[:at], text[at:]) if piece]

    def _result(self, call: ToolCallRequest) -> None:
        outcome = self._data.draw(st.sampled_from([Outcome.OK, Outcome.ERROR]))
        is_error = outcome is Outcome.ERROR
        self.messages.append(
            self._message("tool", "r", tool_call_id=call.tool_call_id, is_error=is_error, outcome=outcome)
        )
        if self._data.draw(st.booleans()):
            self._tell(
                ToolResult(tool_call_id=call.tool_call_id, name="f", result="r", is_error=is_error, outcome=outcome)
            )
        else:
            self._interrupt_attempt()

    def _message(self, role: Any, content: str, **fields: Any) -> EventMessage:
        return EventMessage(id=RUN, conversation_id=RUN, role=role, content=content, created_at=_BORN, **fields)

    def _started(self) -> Started:
        return Started(
            run_id=RUN,
            conversation_id=RUN,
            trigger_message_id=RUN,
            provider="echo",
            model="echo",
            attempt=self._attempt,
            messages=list(self.messages),
        )

    def _tell(self, event: Event) -> None:
        self._n += 1
        self.events.append((EventId(self._attempt, self._n), encode_event(event)))


@given(st.data())
def test_stream_fits_together_wherever_the_run_breaks(data: st.DataObject) -> None:
    """Items are added once and done once, parts follow each other and say what their deltas said, numbers increase,
    the last response is the one that the database has, and a client that comes back anywhere is told just the rest.
    """
    life = Life(data)
    for index in range(1, data.draw(st.integers(0, 3)) + 1):
        life.step(index)
    cancelled = data.draw(st.booleans())
    if cancelled:
        life.cut_short()
        life.end(Cancelled(reason=CancelReason.USER))
    else:
        life.end(Done(usage=Usage(), step_count=0, finish_reason=FinishReason.STOP))
    whole = fold(life.events)
    assert fold([event for event in life.events if event[0] is not None]) == whole
    lines = whole.decode().split("\n")
    frames = [msgspec.json.decode(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    check_order(frames)
    place = data.draw(st.integers(0, len(frames) - 1))
    rest = whole.split(b"\n\n")[place + 1 :]
    assert fold(life.events, after=frames[place]["sequence_number"]) == b"\n\n".join(rest)
    run = run_row(
        RunState.CANCELLED if cancelled else RunState.COMPLETED,
        finish_reason=None if cancelled else FinishReason.STOP,
        partial_text=life.said or None,
    )
    stored = msgspec.to_builtins(response_of(run, life.messages))
    assert frames[-1]["response"] == {**stored, "usage": None if cancelled else stored["usage"]}


def check_order(frames: list[dict[str, Any]]) -> None:
    """What the SDKs insist on, and what a client that only adds up deltas relies on."""
    numbers = [frame["sequence_number"] for frame in frames]
    assert numbers == sorted(set(numbers))
    opened: dict[int, str] = {}
    parts: dict[tuple[str, int], str] = {}
    for frame in frames[2:-1]:
        index, kind = frame["output_index"], frame["type"].removeprefix("response.")
        if kind == "output_item.added":
            assert index == len(opened)
            assert frame["item"]["id"] not in opened.values()
            opened[index] = frame["item"]["id"]
            continue
        assert (frame.get("item") or {"id": frame["item_id"]})["id"] == opened[index]
        part = (opened[index], frame.get("content_index", frame.get("summary_index", -1)))
        if kind.endswith("part.added"):
            assert part[1] == sum(other == part[0] for other, _ in parts)
            parts[part] = ""
        elif kind.endswith("text.delta"):
            parts[part] += frame["delta"]
        elif kind.endswith("text.done"):
            assert parts[part] == frame["text"]
        elif kind == "output_item.done":
            opened[index] += " is done"
    assert all(name.endswith(" is done") for name in opened.values())
