"""The resources of the HTTP contract, as they stand on the wire and in the events."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from msgspec import Meta

from common.model.run_state import FinishReason, Outcome, Priority, RunErrorCode, RunState

Role = Literal["user", "assistant", "tool", "system"]
Time = Annotated[datetime, Meta(tz=True)]


class Wire(msgspec.Struct, rename="camel", kw_only=True):
    """camelCase on the wire; every field is sent, null when empty."""


class Usage(Wire, kw_only=True):
    """Tokens. `inputTokens` includes the cached ones; `estimated` when the provider gave no figures."""

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
    """One message of a conversation. `toolCallId`, `outcome` and `isError` belong to role `tool`; `toolCalls`,
    `reasoning` and `usage` to role `assistant`."""

    id: UUID
    conversation_id: UUID
    run_id: Annotated[
        UUID | None, Meta(description="The run that wrote it; none for a message that a client posted.")
    ] = None
    role: Role
    content: Annotated[str, Meta(description="Its text as first written; an edit leaves it as it is.")]
    reasoning: Annotated[str | None, Meta(description="The model's visible reasoning.")] = None
    tool_calls: list[ToolCallRequest] | None = None
    tool_call_id: Annotated[str | None, Meta(description="Which call this is the result of.")] = None
    is_error: Annotated[bool | None, Meta(description="Whether the result is an error.")] = None
    outcome: Outcome | None = None
    agent_id: UUID | None = None
    provider: str | None = None
    model: str | None = None
    usage: Usage | None = None
    edited_content: Annotated[
        str | None, Meta(description="The text that replaces `content` for models and readers, once it was edited.")
    ] = None
    edited_at: Time | None = None
    superseded_at: Annotated[
        Time | None,
        Meta(description="When a regeneration replaced it; such a message is in no list but `superseded=true`."),
    ] = None
    created_by: Annotated[
        str | None, Meta(description="The user (`sub` of the token) who posted it; none for what a run wrote.")
    ] = None
    created_at: Time


class EventMessage(Message, omit_defaults=True, kw_only=True):
    """A message inside an event: empty fields are left out, never null."""


class AgentSettings(msgspec.Struct, rename="camel", kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Sampling settings; absent means the provider's default."""

    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    max_tokens: Annotated[int, Meta(ge=1, le=10_000_000, description="Bounds one step's output.")] | None = None
    reasoning: Literal["none", "low", "medium", "high"] | None = None


class Agent(Wire, kw_only=True):
    """A reusable choice of instructions, model, tools and settings."""

    id: UUID
    name: str
    instructions: Annotated[str | None, Meta(description="The first part of the system prompt.")] = None
    provider: str | None = None
    model: str | None = None
    tools: Annotated[list[str], Meta(description="Names of `GET /v1/tools`; the model sees no others.")] = (
        msgspec.field(default_factory=list)
    )
    max_steps: Annotated[
        int, Meta(description="How often the model may be asked in one run; then the run ends with `step_limit`.")
    ]
    settings: AgentSettings
    created_by: str
    created_at: Time
    updated_at: Time


class Conversation(Wire, kw_only=True):
    """A thread of messages, shared by its workspace."""

    id: UUID
    title: str | None = None
    agent_id: Annotated[UUID | None, Meta(description="Used where the message names no other.")] = None
    provider: str | None = None
    model: str | None = None
    system_prompt: Annotated[str | None, Meta(description="Follows the agent's instructions.")] = None
    pinned_at: Time | None = None
    archived_at: Time | None = None
    last_message_at: Annotated[Time | None, Meta(description="When its newest message was stored.")] = None
    created_by: str
    created_at: Time
    updated_at: Time


class RunError(Wire, kw_only=True):
    """Why a run failed; `retryable` when the same request may succeed later."""

    code: RunErrorCode
    message: str
    retryable: bool


class Timings(Wire, kw_only=True):
    """Milliseconds since the run was created."""

    queued_ms: Annotated[int | None, Meta(description="Until a worker first took it.")] = None
    first_token_ms: Annotated[int | None, Meta(description="Until the first token of its first step came.")] = None
    total_ms: Annotated[int | None, Meta(description="Until its end.")] = None


class Run(Wire, kw_only=True):
    """One execution of the tool-calling loop for a message."""

    id: UUID
    conversation_id: UUID
    trigger_message_id: Annotated[UUID, Meta(description="The message that it answers.")]
    agent_id: UUID | None = None
    provider: str
    model: str
    state: RunState
    priority: Annotated[Priority, Meta(description="Interactive runs are taken before background ones.")]
    attempt: Annotated[
        int,
        Meta(description="Rises each time that work on it begins anew; 0 before. The first half of event ids."),
    ]
    step_count: Annotated[int, Meta(description="Steps that are committed.")]
    finish_reason: FinishReason | None = None
    error: RunError | None = None
    usage: Usage
    partial_text: Annotated[
        str | None, Meta(description="What the unfinished step of a failed or cancelled run had said; in no message.")
    ] = None
    timings: Timings
    created_by: str
    created_at: Time
    started_at: Time | None = None
    finished_at: Time | None = None


def for_event(message: Message) -> EventMessage:
    """The message as events carry it."""
    return msgspec.convert(message, EventMessage, from_attributes=True)
