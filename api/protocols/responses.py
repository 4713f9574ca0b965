"""OpenAI's Responses: a run is a response, each step of it at most one reasoning item, one message and its calls.

The ids of items come from the run, the step and the call, so that a stream, its replay and a later look at the
database agree on them. An item whose step is asked again stays open: what it has shown is a part that is given up,
and the next try is its next part. `response.output` holds what is committed, and nothing that was given up.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import msgspec

from api.protocols.fold import EventData, Place
from api.protocols.response_items import (
    OpenMessage,
    OpenReasoning,
    OpenText,
    call_item,
    committed_call,
    conclude_call,
)
from api.protocols.response_objects import begun, end
from common.ids import EventId
from common.model import events as run_events
from common.model.messages import Message, ToolCallRequest
from common.model.response_events import (
    ArgumentsDelta,
    ArgumentsDone,
    CallCompleted,
    CallFailed,
    CallInProgress,
    ItemAdded,
    ItemDone,
    ResponseCompleted,
    ResponseCreated,
    ResponseFailed,
    ResponseIncomplete,
    ResponseInProgress,
    StreamEvent,
)
from common.model.responses import CallItem, Item, ItemStatus

_PER_EVENT = 10**5
_PER_ATTEMPT = 10**11

_encode = msgspec.json.Encoder().encode


class _Call(msgspec.Struct):
    """A call that has no result yet; the model still writes it until it is committed."""

    index: int
    item: CallItem
    has_deltas: bool = False
    has_arguments: bool = False
    committed: bool = False


class Responses:
    """Frames are numbered by the run's events: attempt, n, and the frame's place among those of its event, as decimal
    digits. So the numbers increase, have holes, and are the same in each replay.
    """

    headers: Mapping[str, str] = {}
    replays = True
    shared: str | None = None

    def __init__(self, place: Place) -> None:
        self._run_id = place.run_id
        self._after = -1 if place.after is None else place.after
        self._frames: list[bytes] = []
        self._number = 0
        assert place.run is not None, "whoever streams a run has read it"
        self._response = begun(place.run)
        self._opened = False
        self._in_progress = False
        self._repair: run_events.Started | None = None
        self._next_index = 0
        self._step = 0
        self._message: OpenText | None = None
        self._reasoning: OpenText | None = None
        self._calls: dict[str, _Call] = {}
        self._concluded: set[str] = set()
        self._takers: dict[type, Callable[[Any], None]] = {
            run_events.Started: self._take_started,
            run_events.Token: self._take_token,
            run_events.Reasoning: self._take_reasoning,
            run_events.ToolCallDelta: self._take_call_delta,
            run_events.ToolCall: self._take_call,
            run_events.Step: self._take_step,
            run_events.ToolResult: self._take_result,
            run_events.Discarded: self._take_discarded,
            run_events.Done: self._take_end,
            run_events.Error: self._take_end,
            run_events.Cancelled: self._take_end,
        }

    def encode(self, events: Sequence[EventData]) -> bytes:
        """The frames whose numbers are greater than the one that the client has seen.

        The first, whose number is 0, waits for no event: so a client knows its response before a worker has it.
        """
        if not self._opened:
            self._opened = True
            self._tell(ResponseCreated(response=self._response))
            self._response.status = "in_progress"
        for event_id, data in events:
            try:
                event = run_events.decode_event(data)
            except msgspec.ValidationError:
                continue  # Of a newer worker: a client ignores what it does not know.
            self._take(event_id, event)
        frames = b"".join(self._frames)
        self._frames.clear()
        return frames

    def _take(self, event_id: EventId | None, event: run_events.Event) -> None:
        if event_id is None:
            # A `started` that repairs is told under the number of the next event, which every replay has. What
            # follows it without an id was told before.
            if isinstance(event, run_events.Started):
                self._repair = event
            return
        self._number = event_id.attempt * _PER_ATTEMPT + event_id.n * _PER_EVENT
        repair, self._repair = self._repair, None
        if repair is not None and not isinstance(event, run_events.Started):
            self._take_started(repair)
        self._takers[type(event)](event)

    def _take_started(self, event: run_events.Started) -> None:
        if not self._in_progress:
            self._in_progress = True
            self._tell(ResponseInProgress(response=self._response))
        step = 0
        for message in event.messages or []:
            if message.role == "assistant":
                step += 1
                if step > self._step:
                    self._commit(message)
            elif message.tool_call_id is not None:
                self._conclude(message.tool_call_id, message.content, bool(message.is_error))
        self._give_up()

    def _take_token(self, event: run_events.Token) -> None:
        if self._message is None:
            if self._reasoning is not None:
                self._tell_all(self._reasoning.close_part())
            self._message = self._open(OpenMessage)
        self._tell_all(self._message.add(event.content))

    def _take_reasoning(self, event: run_events.Reasoning) -> None:
        if self._reasoning is None:
            self._reasoning = self._open(OpenReasoning)
        self._tell_all(self._reasoning.add(event.content))

    def _take_call_delta(self, event: run_events.ToolCallDelta) -> None:
        if event.tool_call_id in self._concluded:
            return
        call = self._calls.get(event.tool_call_id) or self._open_call(event.tool_call_id, event.name)
        if event.delta:
            self._tell_arguments_delta(call, event.delta)

    def _take_call(self, event: run_events.ToolCall) -> None:
        if event.tool_call_id not in self._concluded:
            self._tell_arguments(
                ToolCallRequest(tool_call_id=event.tool_call_id, name=event.name, arguments=event.arguments)
            )

    def _take_step(self, event: run_events.Step) -> None:
        if event.index <= self._step:
            self._give_up()  # A repair has told it already, and what led to it was told again.
            return
        if event.index > self._step + 1:
            # `started` had room for no messages, so what is open bears the number of an earlier step.
            self._drop_texts()
            self._step = event.index - 1
        self._commit(event.message)

    def _take_result(self, event: run_events.ToolResult) -> None:
        self._conclude(event.tool_call_id, event.result, event.is_error)

    def _take_discarded(self, _: run_events.Discarded) -> None:
        self._give_up()

    def _take_end(self, event: run_events.Terminal) -> None:
        response = self._response
        if self._message is not None and not isinstance(event, run_events.Done) and (text := self._message.text):
            response.output.append(self._close(self._message, text, "incomplete"))
            self._message = None
        self._drop_texts()
        for call in self._calls.values():
            self._drop_call(call)
        end(response, event)
        # The last number of its event, whatever was told before: so it is the same where the log is gone.
        self._number += _PER_EVENT - 1 - self._number % _PER_EVENT
        match response.status:
            case "completed":
                self._tell(ResponseCompleted(response=response))
            case "failed":
                self._tell(ResponseFailed(response=response))
            case _:
                self._tell(ResponseIncomplete(response=response))

    # --- What is committed, and what is given up ---

    def _commit(self, message: Message) -> None:
        """The step's items are what `message` says."""
        output = self._response.output
        for text, opened, kind in (
            (message.reasoning, self._reasoning, OpenReasoning),
            (message.content, self._message, OpenMessage),
        ):
            if text:
                output.append(self._close(opened or self._open(kind), text))
            elif opened is not None:
                self._drop_text(opened)
        self._message = self._reasoning = None
        for request in message.tool_calls or []:
            call = self._tell_arguments(request)
            call.committed = True
            output.append(call.item)
        self._step += 1
        self._drop_uncommitted_calls()

    def _give_up(self) -> None:
        """What is not committed is asked again. The items of a step stay open for its next try."""
        for opened in (self._reasoning, self._message):
            if opened is not None:
                self._tell_all(opened.give_up())
        self._drop_uncommitted_calls()

    def _conclude(self, tool_call_id: str, result: str, is_error: bool) -> None:
        call = self._calls.pop(tool_call_id, None)
        if call is None:
            return  # It was told before.
        self._concluded.add(tool_call_id)
        conclude_call(call.item, result, is_error)
        kind = CallFailed if is_error else CallCompleted
        self._tell(
            kind(item_id=call.item.id, output_index=call.index), ItemDone(output_index=call.index, item=call.item)
        )

    def _drop_uncommitted_calls(self) -> None:
        for tool_call_id, call in list(self._calls.items()):
            if not call.committed:
                del self._calls[tool_call_id]
                self._drop_call(call)

    def _drop_call(self, call: _Call) -> None:
        call.item.status = "incomplete"
        self._tell(ItemDone(output_index=call.index, item=call.item))

    def _drop_texts(self) -> None:
        for opened in (self._reasoning, self._message):
            if opened is not None:
                self._drop_text(opened)
        self._reasoning = self._message = None

    def _drop_text(self, opened: OpenText) -> None:
        self._tell_all(opened.close_part())
        self._tell(ItemDone(output_index=opened.index, item=opened.item(opened.text or None, "incomplete")))

    # --- Items ---

    def _open(self, kind: type[OpenText]) -> OpenText:
        opened = kind(self._run_id, self._step + 1, self._take_index())
        self._tell(ItemAdded(output_index=opened.index, item=opened.item(None, "in_progress")))
        return opened

    def _close(self, opened: OpenText, text: str, status: ItemStatus = "completed") -> Item:
        self._tell_all(opened.finish(text))
        item = opened.item(text, status)
        self._tell(ItemDone(output_index=opened.index, item=item))
        return item

    def _open_call(self, tool_call_id: str, name: str) -> _Call:
        call = self._calls[tool_call_id] = _Call(self._take_index(), call_item(tool_call_id, name))
        self._tell(
            ItemAdded(output_index=call.index, item=call.item),
            CallInProgress(item_id=call.item.id, output_index=call.index),
        )
        return call

    def _tell_arguments(self, request: ToolCallRequest) -> _Call:
        """The call with the arguments that are stored, told once."""
        call = self._calls.get(request.tool_call_id) or self._open_call(request.tool_call_id, request.name)
        if not call.has_arguments:
            call.has_arguments = True
            call.item = committed_call(request)
            if not call.has_deltas:
                self._tell_arguments_delta(call, call.item.arguments)
            self._tell(ArgumentsDone(item_id=call.item.id, output_index=call.index, arguments=call.item.arguments))
        return call

    def _tell_arguments_delta(self, call: _Call, delta: str) -> None:
        call.has_deltas = True
        self._tell(ArgumentsDelta(item_id=call.item.id, output_index=call.index, delta=delta))

    def _take_index(self) -> int:
        index = self._next_index
        self._next_index += 1
        return index

    # --- Frames ---

    def _tell(self, *frames: StreamEvent) -> None:
        self._tell_all(frames)

    def _tell_all(self, frames: Iterable[StreamEvent]) -> None:
        for frame in frames:
            if self._number > self._after:
                frame.sequence_number = self._number
                self._frames.append(b"%b%b\n\n" % (_opening(type(frame)), _encode(frame)))
            self._number += 1


@cache
def _opening(kind: type[StreamEvent]) -> bytes:
    """An SSE frame of this kind up to its JSON, which OpenAI names in an `event:` line, too."""
    return b"event: %b\ndata: " % str(kind.__struct_config__.tag).encode()
