"""From events to sealed batches: what is joined, what is cut, how much goes at once."""

from collections import deque

import msgspec

from common.eventlog.publication import MAX_BATCH_BYTES
from common.model.clean import clean_json
from common.model.events import Event, ToolResult, decode_event, encode_event
from common.model.messages import EventMessage
from worker.run.pieces import take_joined

MAX_RESULT_BYTES = 64 * 1024


def take_batch(pending: deque[Event], first: bytes | None = None) -> tuple[bytes, ...]:
    """Removes what the next batch can hold, encoded: `first`, then at most MAX_BATCH_BYTES in all.

    A single event that is larger makes a batch of its own.
    """
    events = [] if first is None else [first]
    room = MAX_BATCH_BYTES - sum(map(len, events)) - len(events)
    while pending:
        event = take_joined(pending)
        data = _encode(event)
        room -= len(data) + 1
        if room < 0 and events:
            pending.appendleft(event)
            break
        events.append(data)
    return tuple(events)


def cut_result(result: ToolResult) -> ToolResult:
    """The result as events carry it: at most MAX_RESULT_BYTES, marked when the message holds more."""
    data = result.result.encode("utf-8", "replace")
    if len(data) <= MAX_RESULT_BYTES:
        return result
    text = data[:MAX_RESULT_BYTES].decode("utf-8", "ignore")
    return msgspec.structs.replace(result, result=text, truncated=True)


def insert_in_call_order(messages: list[EventMessage], result: EventMessage) -> None:
    """Puts a tool message where the conversation has it: calls that run in parallel end in any order."""
    place = len(messages)
    while place > 0 and messages[place - 1].role == "tool":
        place -= 1
    calls = messages[place - 1].tool_calls if place > 0 else None
    order = {call.tool_call_id: index for index, call in enumerate(calls or [])}
    ours = order.get(result.tool_call_id or "", len(order))
    while place < len(messages) and order.get(messages[place].tool_call_id or "", len(order)) <= ours:
        place += 1
    messages.insert(place, result)


def _encode(event: Event) -> bytes:
    try:
        return encode_event(event)
    except UnicodeEncodeError:
        # A model may send half of a surrogate pair; the other half may have come with the next piece.
        whole = clean_json(msgspec.to_builtins(event))
        return encode_event(decode_event(msgspec.json.encode(whole)))
