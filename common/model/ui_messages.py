"""The wires of the AI SDK (`ai` and `@ai-sdk/react`): what `useChat` posts, the chunks of its UI message stream, and
the messages that it is started with. Optional fields are left out, never null: the client refuses nulls."""

from typing import Any, Literal
from uuid import UUID

import msgspec

from common.model.requests import ModelName, PriorityChoice, ProviderName

ToolState = Literal["output-available", "output-error"]


class PostedPart(msgspec.Struct):
    """A part of a message that a client shows; only text is read."""

    type: str = ""
    text: str | None = None


class PostedMessage(msgspec.Struct):
    """A message as a client has it, under an id of its own making or of ours."""

    role: str = ""
    id: str | None = None
    parts: list[PostedPart] = []


class ChatRequest(msgspec.Struct, rename="camel", kw_only=True):
    """`POST /ai/chat`. Unlike elsewhere, unknown fields pass: applications send what their own servers wanted along.

    Of `messages`, which is all that the client shows, only the last one counts: the history is the server's, and what
    an older message may not say does not stand in the way.
    """

    id: str
    messages: list[msgspec.Raw] = []
    message: PostedMessage | None = None
    trigger: Literal["submit-message", "regenerate-message"] = "submit-message"
    message_id: str | None = None
    agent_id: UUID | None = None
    provider: ProviderName | None = None
    model: ModelName | None = None
    if_busy: Literal["reject", "enqueue", "interrupt"] = "interrupt"
    priority: PriorityChoice = msgspec.UNSET

    def __post_init__(self) -> None:
        if self.message is None and self.messages:
            self.message = msgspec.json.decode(self.messages[-1], type=PostedMessage)
        self.messages = []

    @property
    def last(self) -> PostedMessage | None:
        """The message that the request is about."""
        return self.message


class _Chunk(msgspec.Struct, rename="camel", tag_field="type", omit_defaults=True, frozen=True):
    pass


class Start(_Chunk, tag="start", frozen=True):
    """Begins the message, or its replay."""

    message_id: str


class StartStep(_Chunk, tag="start-step", frozen=True):
    """A step of the model begins."""


class FinishStep(_Chunk, tag="finish-step", frozen=True):
    """The step is over, its calls included."""


class ResetStep(_Chunk, tag="reset-step", frozen=True):
    """Removes what the step has shown. From version 7 on; fatal to older clients."""


class TextStart(_Chunk, tag="text-start", frozen=True):
    """Begins a text part."""

    id: str


class TextDelta(_Chunk, tag="text-delta", frozen=True):
    """A piece of a text part."""

    id: str
    delta: str


class TextEnd(_Chunk, tag="text-end", frozen=True):
    """Ends a text part."""

    id: str


class ReasoningStart(_Chunk, tag="reasoning-start", frozen=True):
    """Begins a reasoning part."""

    id: str


class ReasoningDelta(_Chunk, tag="reasoning-delta", frozen=True):
    """A piece of a reasoning part."""

    id: str
    delta: str


class ReasoningEnd(_Chunk, tag="reasoning-end", frozen=True):
    """Ends a reasoning part."""

    id: str


class _ToolInput(_Chunk, frozen=True):
    tool_call_id: str
    tool_name: str


class ToolInputStart(_ToolInput, tag="tool-input-start", frozen=True, omit_defaults=False):
    """A call appears. `dynamic`: the client has no types for it. `providerExecuted`: it is not to run it either."""

    dynamic: bool = True
    provider_executed: bool = True


class ToolInputDelta(_Chunk, tag="tool-input-delta", frozen=True):
    """A piece of the call's JSON arguments."""

    tool_call_id: str
    input_text_delta: str


class ToolInputAvailable(_ToolInput, tag="tool-input-available", frozen=True, omit_defaults=False):
    """The call as it is run."""

    input: dict[str, Any]
    dynamic: bool = True
    provider_executed: bool = True


class ToolOutputAvailable(_Chunk, tag="tool-output-available", frozen=True, omit_defaults=False):
    """What the call gave."""

    tool_call_id: str
    output: str
    dynamic: bool = True


class ToolOutputError(_Chunk, tag="tool-output-error", frozen=True, omit_defaults=False):
    """The call failed."""

    tool_call_id: str
    error_text: str
    dynamic: bool = True


class ErrorChunk(_Chunk, tag="error", frozen=True):
    """The run failed; the client throws an error with this text."""

    error_text: str


class Abort(_Chunk, tag="abort", frozen=True):
    """The run was cancelled."""


class Finish(_Chunk, tag="finish", frozen=True):
    """The run completed."""

    finish_reason: Literal["stop", "length", "content-filter", "tool-calls", "other"]


Chunk = (
    Start
    | StartStep
    | FinishStep
    | ResetStep
    | TextStart
    | TextDelta
    | TextEnd
    | ReasoningStart
    | ReasoningDelta
    | ReasoningEnd
    | ToolInputStart
    | ToolInputDelta
    | ToolInputAvailable
    | ToolOutputAvailable
    | ToolOutputError
    | ErrorChunk
    | Abort
    | Finish
)


class _Part(msgspec.Struct, rename="camel", tag_field="type", omit_defaults=True, kw_only=True):
    pass


class StepStartPart(_Part, tag="step-start"):
    """Where a step of the model begins."""


class TextPart(_Part, tag="text", omit_defaults=False, kw_only=True):
    """Text."""

    text: str
    state: Literal["done"] = "done"


class ReasoningPart(_Part, tag="reasoning", omit_defaults=False, kw_only=True):
    """The model's visible reasoning."""

    text: str
    state: Literal["done"] = "done"


class DynamicToolPart(_Part, tag="dynamic-tool", kw_only=True):
    """A call and what it gave: `output`, or `errorText`."""

    tool_name: str
    tool_call_id: str
    state: ToolState
    input: dict[str, Any]
    output: str | None = None
    error_text: str | None = None
    provider_executed: Literal[True]


UIPart = StepStartPart | TextPart | ReasoningPart | DynamicToolPart


class UIMessage(msgspec.Struct, kw_only=True):
    """A message for `useChat({ messages })`. An answer bears the id of its run."""

    id: str
    role: Literal["user", "assistant", "system"]
    parts: list[UIPart]
