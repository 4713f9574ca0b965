"""A step between the loop and the store: what the model said, the calls it made, the ledger's view of them."""

from typing import Any, Literal
from uuid import UUID

import msgspec

from common.model.messages import ToolCallRequest, Usage
from common.model.run_state import Effect, FinishReason


class StepOutput(msgspec.Struct, kw_only=True, frozen=True):
    """One finished step of the model. `provider_data` is the provider's own form, given back to it later."""

    content: str
    reasoning: str | None
    tool_calls: list[ToolCallRequest]
    provider_data: Any | None
    usage: Usage


class PlannedCall(msgspec.Struct, kw_only=True, frozen=True):
    """A call as the model made it, before it is committed. `invalid` says why it cannot be run."""

    id: str
    name: str
    arguments: dict[str, Any]
    invalid: str | None
    provider_call_id: str | None
    effect: Effect


class NewStep(msgspec.Struct, kw_only=True, frozen=True):
    """What a step commits. `finish_reason` is there when it called no tool; `first_token_age_s` is in seconds."""

    index: int
    model_call_id: UUID
    output: StepOutput
    calls: list[PlannedCall]
    finish_reason: FinishReason | None
    first_token_age_s: float | None


class CallEnd(msgspec.Struct, kw_only=True, frozen=True):
    """A model call that made no step. `first_token_age_s` is in seconds, None when not a token came."""

    model_call_id: UUID
    state: Literal["failed", "cancelled"]
    usage: Usage
    error_code: str | None = None
    first_token_age_s: float | None = None


class LedgerCall(msgspec.Struct, kw_only=True, frozen=True):
    """A call of a committed step, as the ledger has it; `index` is its place among its step's."""

    id: str
    run_id: UUID
    message_id: UUID
    step: int
    index: int
    name: str
    arguments: dict[str, Any]
    invalid: str | None
    provider_call_id: str | None
    effect: Effect
    state: Literal["pending", "started", "finished"]
