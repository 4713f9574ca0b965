"""The resources of the HTTP contract, as they stand on the wire and in the events."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec

from common.model.run_state import FinishReason, Outcome, RunErrorCode, RunState

Role = Literal["user", "assistant", "tool", "system"]


class Wire(msgspec.Struct, rename="camel", kw_only=True):
    """camelCase on the wire; every field is sent, null when empty."""


class Usage(Wire, kw_only=True):
    """Tokens. `input_tokens` includes the cached ones; `estimated` when the provider gave no figures."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    estimated: bool = False

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cached_input_tokens=self.cached_input_tokens + other.cached_input_tokens,
            cache_write_tokens=self.cache_write_tokens + other.cache_write_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
            estimated=self.estimated or other.estimated,
        )


class ToolCallRequest(Wire, kw_only=True):
    """A call as the model made it; `arguments` is `{}` where the model sent no JSON object."""

    tool_call_id: str
    name: str
    arguments: dict[str, Any]


class Message(Wire, kw_only=True):
    """One message of a conversation. `outcome` and `is_error` belong to role `tool`."""

    id: UUID
    conversation_id: UUID
    run_id: UUID | None = None
    role: Role
    content: str
    reasoning: str | None = None
    tool_calls: list[ToolCallRequest] | None = None
    tool_call_id: str | None = None
    is_error: bool | None = None
    outcome: Outcome | None = None
    agent_id: UUID | None = None
    provider: str | None = None
    model: str | None = None
    usage: Usage | None = None
    edited_content: str | None = None
    edited_at: datetime | None = None
    superseded_at: datetime | None = None
    created_by: str | None = None
    created_at: datetime


class EventMessage(Message, omit_defaults=True, kw_only=True):
    """A message inside an event: empty fields are left out, never null."""


class AgentSettings(msgspec.Struct, rename="camel", kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Sampling settings; absent means the provider's default. `max_tokens` bounds one step's output."""

    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    max_tokens: Annotated[int, msgspec.Meta(ge=1, le=10_000_000)] | None = None
    reasoning: Literal["none", "low", "medium", "high"] | None = None


class Agent(Wire, kw_only=True):
    """A reusable choice of instructions, model, tools and settings."""

    id: UUID
    name: str
    instructions: str | None = None
    provider: str | None = None
    model: str | None = None
    tools: list[str] = msgspec.field(default_factory=list)
    max_steps: int
    settings: AgentSettings
    created_by: str
    created_at: datetime
    updated_at: datetime


class Conversation(Wire, kw_only=True):
    """A thread of messages, shared by its workspace."""

    id: UUID
    title: str | None = None
    agent_id: UUID | None = None
    provider: str | None = None
    model: str | None = None
    system_prompt: str | None = None
    pinned_at: datetime | None = None
    archived_at: datetime | None = None
    last_message_at: datetime | None = None
    created_by: str
    created_at: datetime
    updated_at: datetime


class RunError(Wire, kw_only=True):
    """Why a run failed; `retryable` when the same request may succeed later."""

    code: RunErrorCode
    message: str
    retryable: bool


class Timings(Wire, kw_only=True):
    """Milliseconds: until claimed, until the first token (both from creation), and until the end."""

    queued_ms: int | None = None
    first_token_ms: int | None = None
    total_ms: int | None = None


class Run(Wire, kw_only=True):
    """One execution of the tool-calling loop for a message."""

    id: UUID
    conversation_id: UUID
    trigger_message_id: UUID
    agent_id: UUID | None = None
    provider: str
    model: str
    state: RunState
    attempt: int
    step_count: int
    finish_reason: FinishReason | None = None
    error: RunError | None = None
    usage: Usage
    partial_text: str | None = None
    timings: Timings
    created_by: str
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None


def for_event(message: Message) -> EventMessage:
    """The message as events carry it."""
    return msgspec.convert(message, EventMessage, from_attributes=True)
