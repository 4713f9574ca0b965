"""THE vocabulary of a run's event log. An event's JSON here is the native stream's JSON, byte for byte.

`type` comes first in the JSON; fields that are empty are left out, never null.
"""

from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from msgspec import Meta

from common.model.messages import EventMessage, RunError, Usage
from common.model.run_state import CancelReason, Effect, FinishReason, Outcome


class _Event(msgspec.Struct, rename="camel", tag_field="type", omit_defaults=True, kw_only=True, frozen=True):
    pass


class Started(_Event, tag="started", kw_only=True, frozen=True):
    """Begins every attempt (`n = 1`). Clients replace what they have of this run with `messages`.

    Beyond 1 MB the texts are left out: `messageIds` names the committed messages instead.
    """

    run_id: UUID
    conversation_id: UUID
    trigger_message_id: UUID
    agent_id: UUID | None = None
    provider: str
    model: str
    attempt: Annotated[int, Meta(description="The first half of the ids that follow.")]
    messages: Annotated[list[EventMessage] | None, Meta(description="What this run has committed so far.")] = None
    message_ids: list[UUID] | None = None


class Token(_Event, tag="token", kw_only=True, frozen=True):
    """A piece of the answer's text."""

    content: str


class Reasoning(_Event, tag="reasoning", kw_only=True, frozen=True):
    """A piece of the model's visible reasoning."""

    content: str


class ToolCallDelta(_Event, tag="tool_call_delta", kw_only=True, frozen=True):
    """A piece of a call's JSON arguments; the first one of a call may be empty."""

    tool_call_id: str
    name: str
    delta: Annotated[str, Meta(description="A piece of the JSON arguments.")]


class ToolCall(_Event, tag="tool_call", kw_only=True, frozen=True):
    """A call that is committed and about to be run."""

    tool_call_id: str
    name: str
    arguments: dict[str, Any]
    effect: Effect


class Step(_Event, tag="step", kw_only=True, frozen=True):
    """A committed step: `message` overrides the tokens that led to it."""

    index: Annotated[int, Meta(description="Counts from 1.")]
    message: EventMessage
    usage: Usage


class ToolResult(_Event, tag="tool_result", kw_only=True, frozen=True):
    """A committed result."""

    tool_call_id: str
    name: str
    result: str
    is_error: bool
    outcome: Outcome
    truncated: Annotated[bool | None, Meta(description="The message holds more than the 64 KB sent here.")] = None


class Discarded(_Event, tag="discarded", kw_only=True, frozen=True):
    """Forget everything since the last `step` or `started`: the step is asked again."""

    reason: Annotated[str, Meta(description="Why, in one word; for logs.")]


class Done(_Event, tag="done", kw_only=True, frozen=True):
    """The run completed. `messageId` is its last assistant message."""

    message_id: UUID | None = None
    usage: Usage
    step_count: Annotated[int, Meta(description="Steps that were committed.")]
    finish_reason: FinishReason


class Error(_Event, tag="error", kw_only=True, frozen=True):
    """The run failed."""

    error: RunError


class Cancelled(_Event, tag="cancelled", kw_only=True, frozen=True):
    """The run was cancelled."""

    reason: CancelReason


Terminal = Done | Error | Cancelled
Event = Started | Token | Reasoning | ToolCallDelta | ToolCall | Step | ToolResult | Discarded | Terminal

STARTED_LIMIT_BYTES = 1_000_000
TERMINAL_TYPES: frozenset[Literal["done", "error", "cancelled"]] = frozenset({"done", "error", "cancelled"})
_STARTED_PREFIX = b'{"type":"started"'
_TERMINAL_PREFIXES = tuple(f'{{"type":"{name}"'.encode() for name in sorted(TERMINAL_TYPES))

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)


def encode_event(event: Event) -> bytes:
    """The event's one JSON form."""
    return _encoder.encode(event)


def encode_started(started: Started) -> bytes:
    """`started` as JSON; beyond 1 MB it names its messages by id instead of carrying them."""
    data = _encoder.encode(started)
    if len(data) <= STARTED_LIMIT_BYTES or started.messages is None:
        return data
    ids = [message.id for message in started.messages]
    return _encoder.encode(msgspec.structs.replace(started, messages=None, message_ids=ids))


def decode_event(data: bytes) -> Event:
    """The event in `data`, which was written by `encode_event`."""
    return _decoder.decode(data)


def names_messages(data: bytes) -> bool:
    """Whether `data` is a `started` that names its messages only. Not parsed: one whose text says so counts, too."""
    return data.startswith(_STARTED_PREFIX) and b'"messageIds":[' in data


def is_terminal(data: bytes) -> bool:
    """Whether `data`, written by `encode_event`, ends its run. Costs no parsing: `type` comes first."""
    return data.startswith(_TERMINAL_PREFIXES)
