"""The AI SDK's UI message stream (`ai` 5, 6 and 7): one run is one message, whose id is the run's.

An unknown chunk, a null, or a delta without its start is fatal to the client, so only chunks that all its releases
know are sent. It has no place to resume from: each connection is told the message from its beginning.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from typing import Any, ClassVar, Literal

import msgspec

from api.protocols.fold import EventData, Place
from common.ids import EventId
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
    decode_event,
)
from common.model.messages import Message
from common.model.run_state import FinishReason
from common.model.ui_messages import (
    Abort,
    Chunk,
    ErrorChunk,
    Finish,
    FinishStep,
    ReasoningDelta,
    ReasoningEnd,
    ReasoningStart,
    ResetStep,
    Start,
    StartStep,
    TextDelta,
    TextEnd,
    TextStart,
    ToolInputAvailable,
    ToolInputDelta,
    ToolInputStart,
    ToolOutputAvailable,
    ToolOutputError,
)

DISCARDED = "This call was dropped: the model was asked again."
UNANSWERED = "The run ended before this call had a result."

_FINISH_REASONS: dict[FinishReason, Literal["stop", "length", "content-filter", "tool-calls", "other"]] = {
    FinishReason.STOP: "stop",
    FinishReason.LENGTH: "length",
    FinishReason.CONTENT_FILTER: "content-filter",
    FinishReason.STEP_LIMIT: "tool-calls",  # What the SDK's own loop says when it may take no more steps.
    FinishReason.OTHER: "other",
}
_END = b"data: [DONE]\n\n"

_encode = msgspec.json.Encoder().encode


class _Call(Enum):
    """What the client knows of a call."""

    STREAMING = "streaming"
    AVAILABLE = "available"
    ANSWERED = "answered"


class AiSdk:
    """`resets`: the client knows `reset-step`, so that what is told again replaces what it has. To others the dropped
    part of a step stays shown, closed, and what replaces it follows.
    """

    headers: Mapping[str, str] = {"x-vercel-ai-ui-message-stream": "v1"}
    replays = True
    shared: str | None = None

    def __init__(self, place: Place, *, resets: bool = False) -> None:
        self._message_id = str(place.run_id)
        self._resets = resets
        self._out: list[bytes] = []
        self._begun = False
        self._part: Literal["text", "reasoning"] | None = None
        """The open part, and its id."""
        self._part_id = ""
        self._said: list[str] = []
        """What the open part goes on with; neighbouring pieces are sent as one, which makes a long replay short."""
        self._nameless = 0
        """Parts that began with an event without an id."""
        self._in_step = False
        self._committed = False
        """Whether the open step is committed: what is not a result of its calls then begins another one."""
        self._shown: set[str] = set()
        """Of the open step: which kinds of parts the client has seen."""
        self._steps = 0
        """Committed steps that the client has."""
        self._at = 0
        """Committed steps at this place of the log: fewer than the client has, where what fell back is told again."""
        self._calls: dict[str, _Call] = {}
        self._open_calls: list[str] = []
        """Calls of the open step, while it is not committed."""

    def encode(self, events: Sequence[EventData]) -> bytes:
        """The chunks for the next events, each a frame; `[DONE]` after the run's end."""
        for event_id, data in events:
            try:
                event = decode_event(data)
            except msgspec.ValidationError:
                continue  # Of a newer worker: a client ignores what it does not know.
            if not self._is_told(event):
                self._HANDLERS[type(event)](self, event, event_id)
        self._tell_said()
        frames = b"".join(self._out)
        self._out.clear()
        return frames

    def _is_told(self, event: Event) -> bool:
        """Whether it belongs to a step that the client has as a whole."""
        match event:
            case Started():
                self._at = sum(message.role == "assistant" for message in event.messages or ())
                return False
            case Step():
                told, self._at = event.index <= self._steps, event.index
                return told
            case Token() | Reasoning() | ToolCallDelta() | ToolCall() | Discarded():
                return self._at < self._steps
            case _:
                return False

    def _tell(self, chunk: Chunk) -> None:
        self._tell_said()
        self._out.append(b"data: %b\n\n" % _encode(chunk))

    def _tell_said(self) -> None:
        if self._said:
            delta = TextDelta if self._part == "text" else ReasoningDelta
            chunk = delta(self._part_id, "".join(self._said))
            self._said.clear()
            self._tell(chunk)

    def _on_token(self, event: Token, event_id: EventId | None) -> None:
        if self._part != "text":
            self._begin_part("text", event_id)
        self._said.append(event.content)

    def _on_reasoning(self, event: Reasoning, event_id: EventId | None) -> None:
        if self._part != "reasoning":
            self._begin_part("reasoning", event_id)
        self._said.append(event.content)

    def _on_started(self, event: Started, _: EventId | None) -> None:
        if self._begun:
            self._drop_step()
        else:
            self._begun = True
            self._tell(Start(self._message_id))
        self._tell_committed(event.messages or ())

    def _on_tool_call_delta(self, event: ToolCallDelta, _: EventId | None) -> None:
        self._end_part()
        self._need_step()
        if event.tool_call_id not in self._calls:
            self._note_call(event.tool_call_id, _Call.STREAMING)
            self._tell(ToolInputStart(event.tool_call_id, event.name))
        if event.delta and self._calls[event.tool_call_id] is _Call.STREAMING:
            self._tell(ToolInputDelta(event.tool_call_id, event.delta))

    def _on_tool_call(self, event: ToolCall, _: EventId | None) -> None:
        self._end_part()
        self._need_step()
        self._tell_call(event.tool_call_id, event.name, event.arguments)

    def _on_step(self, event: Step, _: EventId | None) -> None:
        self._commit(event.message)

    def _on_tool_result(self, event: ToolResult, _: EventId | None) -> None:
        self._tell_result(event.tool_call_id, event.name, event.result, event.is_error)

    def _on_discarded(self, _: Discarded, __: EventId | None) -> None:
        self._drop_step()

    def _on_done(self, event: Done, _: EventId | None) -> None:
        self._end(Finish(_FINISH_REASONS[event.finish_reason]))

    def _on_error(self, event: Error, _: EventId | None) -> None:
        self._end(ErrorChunk(event.error.message))

    def _on_cancelled(self, _: Cancelled, __: EventId | None) -> None:
        self._end(Abort())

    _HANDLERS: ClassVar[dict[type, Callable[[Any, Any, EventId | None], None]]] = {
        Token: _on_token,
        Reasoning: _on_reasoning,
        Started: _on_started,
        ToolCallDelta: _on_tool_call_delta,
        ToolCall: _on_tool_call,
        Step: _on_step,
        ToolResult: _on_tool_result,
        Discarded: _on_discarded,
        Done: _on_done,
        Error: _on_error,
        Cancelled: _on_cancelled,
    }

    def _begin_part(self, kind: Literal["text", "reasoning"], event_id: EventId | None) -> None:
        """Named after the event, so that a replay names it alike."""
        if event_id is None:
            self._nameless += 1
        self._open_part(kind, f"part-{self._nameless}" if event_id is None else str(event_id))

    def _open_part(self, kind: Literal["text", "reasoning"], part_id: str) -> None:
        self._end_part()
        self._need_step()
        self._part, self._part_id = kind, part_id
        self._shown.add(kind)
        self._tell(TextStart(part_id) if kind == "text" else ReasoningStart(part_id))

    def _end_part(self) -> None:
        if self._part is not None:
            self._tell(TextEnd(self._part_id) if self._part == "text" else ReasoningEnd(self._part_id))
            self._part = None

    def _need_step(self) -> None:
        """Something of a step that is not committed follows."""
        if self._in_step and not self._committed:
            return
        self._finish_step()
        self._in_step, self._committed = True, False
        self._shown.clear()
        self._tell(StartStep())

    def _finish_step(self) -> None:
        if self._in_step:
            self._in_step = False
            self._tell(FinishStep())

    def _drop_step(self) -> None:
        """What the step has shown is void, unless it is committed. The client stays within it."""
        if not self._in_step or self._committed:
            return
        if self._resets:
            self._part = None
            self._said.clear()
            self._tell(ResetStep())
        else:
            self._end_part()
            for call_id in self._open_calls:
                self._tell(ToolOutputError(call_id, DISCARDED))
        for call_id in self._open_calls:
            del self._calls[call_id]
        self._open_calls.clear()
        self._shown.clear()

    def _tell_committed(self, messages: Iterable[Message]) -> None:
        """What of the run's committed messages the client lacks."""
        step = 0
        for message in messages:
            if message.role == "assistant":
                step += 1
                if step > self._steps:
                    self._commit(message)
            elif message.tool_call_id is not None:
                self._tell_result(message.tool_call_id, "", message.content, bool(message.is_error))

    def _commit(self, message: Message) -> None:
        """The step is stored: whatever of it the client has not seen is told, as it is stored."""
        self._end_part()
        self._need_step()
        if message.reasoning and "reasoning" not in self._shown:
            self._tell_whole("reasoning", f"{message.id}-reasoning", message.reasoning)
        if message.content and "text" not in self._shown:
            self._tell_whole("text", f"{message.id}-text", message.content)
        for call in message.tool_calls or ():
            self._tell_call(call.tool_call_id, call.name, call.arguments)
        for call_id in self._open_calls:
            if self._calls[call_id] is _Call.STREAMING:
                self._calls[call_id] = _Call.ANSWERED
                self._tell(ToolOutputError(call_id, DISCARDED))
        self._open_calls.clear()
        self._committed = True
        self._steps += 1

    def _tell_whole(self, kind: Literal["text", "reasoning"], part_id: str, text: str) -> None:
        self._open_part(kind, part_id)
        self._said.append(text)
        self._end_part()

    def _note_call(self, call_id: str, state: _Call) -> None:
        if call_id not in self._calls:
            self._open_calls.append(call_id)
        self._calls[call_id] = state

    def _tell_call(self, call_id: str, name: str, arguments: dict[str, Any]) -> None:
        if self._calls.get(call_id) in (None, _Call.STREAMING):
            self._note_call(call_id, _Call.AVAILABLE)
            self._tell(ToolInputAvailable(call_id, name, arguments))

    def _tell_result(self, call_id: str, name: str, result: str, is_error: bool) -> None:
        state = self._calls.get(call_id)
        if state is _Call.ANSWERED:
            return
        if state is None:
            # Of a step that `started` only named, since it was too large: a result without its call is fatal.
            self._need_any_step()
            self._tell(ToolInputAvailable(call_id, name, {}))
        self._calls[call_id] = _Call.ANSWERED
        self._tell(ToolOutputError(call_id, result) if is_error else ToolOutputAvailable(call_id, result))

    def _need_any_step(self) -> None:
        if not self._in_step:
            self._need_step()
            self._committed = True

    def _end(self, chunk: Chunk) -> None:
        """Everything is closed first: after an error the client reads nothing more."""
        if not self._begun:
            self._begun = True
            self._tell(Start(self._message_id))
        self._end_part()
        for call_id, state in self._calls.items():
            if state is not _Call.ANSWERED:
                self._tell(ToolOutputError(call_id, UNANSWERED))
        self._finish_step()
        self._tell(chunk)
        self._out.append(_END)
