"""What a model provider is to the loop: one request in, a stream of events out.

A good stream ends with exactly one `Finish`, its last event. Everything else ends in `ProviderError`: a
stream that stops early raises the kind `truncated`, so that half an answer is never taken for a whole one.
Providers never retry (the loop does), and closing the generator closes the connection at once.
"""

from collections.abc import AsyncGenerator
from typing import Any, Literal, Protocol

import msgspec

from common.model.messages import AgentSettings, Role, Usage

ErrorKind = Literal[
    "rate_limited",
    "overloaded",
    "server",
    "timeout",
    "connection",
    "truncated",
    "rejected",
    "auth",
    "not_found",
    "context_length",
]
RETRYABLE_KINDS: frozenset[ErrorKind] = frozenset(
    {"rate_limited", "overloaded", "server", "timeout", "connection", "truncated"}
)

StopReason = Literal["stop", "length", "content_filter", "tool_calls", "other"]


class HistoryToolCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call that the model made earlier; `id` is ours, not the provider's."""

    id: str
    name: str
    arguments: dict[str, Any]


class HistoryMessage(msgspec.Struct, frozen=True, kw_only=True):
    """One message of the model's history.

    `tool_call_id` and `is_error` belong to role `tool`. `provider` names who wrote an assistant message, and
    `provider_data` is what that provider's `Finish` asked to get back; other providers ignore it.
    """

    role: Role
    content: str
    reasoning: str | None = None
    tool_calls: list[HistoryToolCall] = []
    tool_call_id: str | None = None
    is_error: bool = False
    provider: str | None = None
    provider_data: Any | None = None


class ToolSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A tool as the model sees it; `parameters` is the JSON schema of its arguments object."""

    name: str
    description: str
    parameters: dict[str, Any]


class ModelRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One step's question to a model. Each tool call in `messages` is followed by its result."""

    model: str
    instructions: str
    messages: list[HistoryMessage]
    tools: list[ToolSpec]
    settings: AgentSettings


class TextDelta(msgspec.Struct, frozen=True):
    """A piece of the answer."""

    text: str


class ReasoningDelta(msgspec.Struct, frozen=True):
    """A piece of the model's visible reasoning."""

    text: str


class ToolCallDelta(msgspec.Struct, frozen=True):
    """A piece of a call's JSON arguments.

    `index` alone identifies a call within its step (from 0, in the order of the calls). The first delta of a
    call carries `name`, and `provider_call_id` where the provider has one; later ones carry None for both. A call
    without any arguments may have no text at all: that means `{}`.
    """

    index: int
    provider_call_id: str | None
    name: str | None
    delta: str


class UsageReport(msgspec.Struct, frozen=True):
    """What the step has cost so far; a later report replaces an earlier one."""

    usage: Usage


class Finish(msgspec.Struct, frozen=True):
    """A good end. `provider_data` (JSON values) comes back in this message's `HistoryMessage`.

    With any reason but `stop` and `tool_calls`, the arguments of the last call may be incomplete.
    """

    reason: StopReason
    provider_data: Any | None = None


ProviderEvent = TextDelta | ReasoningDelta | ToolCallDelta | UsageReport | Finish


class ProviderError(Exception):
    """Why a step got no answer. `message` may be shown to users: it holds no key and no content.

    `retry_after_s` is the pause that the provider asked for, `status` the HTTP status where there was one.
    """

    def __init__(
        self,
        kind: ErrorKind,
        message: str,
        *,
        status: int | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.kind: ErrorKind = kind
        self.message = message
        self.status = status
        self.retry_after_s = retry_after_s

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed later."""
        return self.kind in RETRYABLE_KINDS


class Provider(Protocol):
    """A model provider. One instance serves all runs of a worker at once."""

    name: str

    def stream(self, request: ModelRequest) -> AsyncGenerator[ProviderEvent, None]:
        """Asks the model. Closing the generator, or cancelling the task inside it, closes the connection.

        Raises ProviderError. Bounds the connecting only: how long to wait for an event is up to the caller.
        """
        ...

    async def close(self) -> None:
        """Frees the connections; no stream may be open."""
        ...


class ProviderOffer(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker can say of a provider. `missing` names the environment variable that it lacks."""

    name: str
    configured: bool
    missing: str | None
    models: list[str]
