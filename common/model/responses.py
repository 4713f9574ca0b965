"""The wire of OpenAI's Responses API, as far as it is spoken here: requests, responses, the events of a stream.

Names and order of fields are OpenAI's. Ids are made of ours, so that they come out the same wherever they are shown.
"""

import re
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from msgspec import Meta

Status = Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
ItemStatus = Literal["in_progress", "completed", "incomplete", "failed"]

SERVER_LABEL = "throughline"
"""Whose tools the calls in a response are of: they run here, not at the client."""

_ID = re.compile(r"(?:(?:resp|conv)_)?([0-9a-f]{32}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})", re.ASCII)


def response_id(run_id: UUID) -> str:
    """A run is a response."""
    return f"resp_{run_id.hex}"


def conversation_name(conversation_id: UUID) -> str:
    """A conversation's id in this API."""
    return f"conv_{conversation_id.hex}"


def parse_id(text: str, prefix: Literal["resp", "conv"]) -> UUID | None:
    """The id in `<prefix>_<hex>`, or in a plain UUID; None for anything else."""
    match = _ID.fullmatch(text)
    if match is None or (text[4:5] == "_" and not text.startswith(f"{prefix}_")):
        return None
    return UUID(match[1])


# --- What clients send ---


class ConversationReference(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """`conversation`, in its longer form."""

    id: str


class ReasoningWish(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """`reasoning`. A summary is what the model shows of its reasoning; there is no choice of how long it is."""

    effort: Literal["none", "low", "medium", "high"] | None = None
    summary: Literal["auto"] | None = None


class NewResponse(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """`POST /openai/v1/responses`. What is typed `Any` cannot be chosen here: only its neutral value is taken."""

    input: str | list[dict[str, Any]]
    model: Annotated[str, Meta(min_length=1, max_length=400)] | None = None
    conversation: str | ConversationReference | None = None
    previous_response_id: str | None = None
    instructions: str | None = None
    stream: bool | None = None
    background: bool | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    max_output_tokens: Annotated[int, Meta(ge=1, le=10_000_000)] | None = None
    reasoning: ReasoningWish | None = None
    context_management: Any = None
    include: Any = None
    max_tool_calls: Any = None
    metadata: Any = None
    moderation: Any = None
    parallel_tool_calls: Any = None
    prompt: Any = None
    prompt_cache_key: Any = None
    prompt_cache_options: Any = None
    prompt_cache_retention: Any = None
    safety_identifier: Any = None
    service_tier: Any = None
    store: Any = None
    stream_options: Any = None
    text: Any = None
    tool_choice: Any = None
    tools: Any = None
    top_logprobs: Any = None
    truncation: Any = None
    user: Any = None


class InputMessage(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """An item of `input`; `id`, `status` and `phase` are there when it is a message of an earlier response."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[dict[str, Any]]
    id: str | None = None
    status: str | None = None
    phase: str | None = None


# --- What a response consists of ---


class OutputText(msgspec.Struct, tag_field="type", tag="output_text", kw_only=True):
    """A part of a message."""

    text: str
    annotations: list[Any] = []
    logprobs: list[Any] = []


class SummaryText(msgspec.Struct, tag_field="type", tag="summary_text", kw_only=True):
    """A part of what a model shows of its reasoning."""

    text: str


class _Item(msgspec.Struct, tag_field="type", kw_only=True):
    id: str


class MessageItem(_Item, tag="message", kw_only=True):
    """What the model said in one step."""

    status: ItemStatus
    role: Literal["assistant"] = "assistant"
    content: list[OutputText]


class ReasoningItem(_Item, tag="reasoning", kw_only=True):
    """What the model showed of its reasoning in one step."""

    status: ItemStatus
    summary: list[SummaryText]


class ToolError(msgspec.Struct, tag_field="type", tag="mcp_tool_execution_error", kw_only=True):
    """What a tool said when it failed, in the form of MCP."""

    content: list[dict[str, str]]


class CallItem(_Item, tag="mcp_call", kw_only=True):
    """A call of one of the agent's own tools; `arguments` is JSON."""

    status: ItemStatus
    name: str
    arguments: str
    server_label: str = SERVER_LABEL
    output: str | None = None
    error: ToolError | None = None


Item = MessageItem | ReasoningItem | CallItem


class ResponseError(msgspec.Struct, kw_only=True):
    """Why a response failed. OpenAI's codes are a closed list, so the run's own one is the `type`."""

    code: Literal["server_error"] = "server_error"
    message: str
    type: str


class IncompleteDetails(msgspec.Struct, kw_only=True):
    """Why a response ends early."""

    reason: str


class InputTokensDetails(msgspec.Struct, kw_only=True):
    """Of the input."""

    cached_tokens: int
    cache_write_tokens: int


class OutputTokensDetails(msgspec.Struct, kw_only=True):
    """Of the output."""

    reasoning_tokens: int


class ResponseUsage(msgspec.Struct, kw_only=True):
    """Tokens of all the response's steps."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


class ResponseConversation(msgspec.Struct, kw_only=True):
    """Where the response belongs."""

    id: str


class ResponseObject(msgspec.Struct, kw_only=True):
    """A run as OpenAI shows a response. What a request chose is not shown again: null, or OpenAI's default."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    status: Status
    error: ResponseError | None = None
    incomplete_details: IncompleteDetails | None = None
    instructions: None = None
    max_output_tokens: None = None
    model: str
    output: list[Item]
    parallel_tool_calls: bool = True
    previous_response_id: None = None
    conversation: ResponseConversation
    temperature: None = None
    text: dict[str, Any] = msgspec.field(default_factory=lambda: {"format": {"type": "text"}})
    tool_choice: Literal["auto"] = "auto"
    tools: list[Any] = []
    top_p: None = None
    truncation: Literal["disabled"] = "disabled"
    usage: ResponseUsage | None = None
    metadata: dict[str, str] = {}


# --- The list of models ---


class ModelObject(msgspec.Struct, kw_only=True):
    """What `model` can name: an agent, or a provider's model."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str


class ModelList(msgspec.Struct, kw_only=True):
    """All of them, in one piece."""

    object: Literal["list"] = "list"
    data: list[ModelObject]


class OpenAIErrorDetail(msgspec.Struct, kw_only=True):
    """`code` is one of ours; `param` is the field that is wrong, where one is."""

    message: str
    type: str
    param: str | None
    code: str


class OpenAIError(msgspec.Struct, kw_only=True):
    """The form of every error under /openai."""

    error: OpenAIErrorDetail
