"""One turn of the model: a request, its stream, what came of it. Retries what a provider may mend by itself."""

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import aclosing
from typing import Any, Literal, NamedTuple, Protocol
from uuid import UUID

import msgspec
import structlog

from common.ids import new_tool_call_id
from common.model.events import Discarded, Event, Reasoning, Token, ToolCallDelta
from common.model.messages import Usage
from common.model.steps import CallEnd
from worker.providers.base import (
    Finish,
    HistoryMessage,
    ModelRequest,
    Provider,
    ProviderError,
    ReasoningDelta,
    StopReason,
    TextDelta,
    UsageReport,
)
from worker.providers.base import ToolCallDelta as CallDelta
from worker.run.patience import Patience
from worker.run.retry_budget import RetryBudget

_log = structlog.get_logger(__name__)
_BACKOFF_S = 0.5
_LONGEST_PAUSE_S = 60.0
_MOST_TOKENS = 10**12

MAX_ANSWER_CHARACTERS = 5_000_000
"""More than any model says at once. Each of text, reasoning and a call's arguments is bounded by it."""


class TurnLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds until the first event and between two, and how often a failed request is made again.

    `budget` is what all runs with this provider share of such retries.
    """

    first_token_s: float
    silence_s: float
    retries: int
    budget: RetryBudget


class Text:
    """Text that arrives in pieces; adding them up one by one would copy it all each time."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._length = 0

    def add(self, piece: str) -> None:
        """Appends a piece. Raises ProviderError when the whole is longer than a conversation keeps."""
        self._pieces.append(piece)
        self._length += len(piece)
        if self._length > MAX_ANSWER_CHARACTERS:
            raise ProviderError("rejected", f"the answer is longer than {MAX_ANSWER_CHARACTERS:,} characters")

    def __len__(self) -> int:
        return self._length

    @property
    def joined(self) -> str:
        """All of it."""
        return "".join(self._pieces)


class TurnCall(msgspec.Struct, kw_only=True):
    """A call as it streamed in; `id` was minted by us at its first piece."""

    id: str
    name: str
    provider_call_id: str | None
    text: Text = msgspec.field(default_factory=Text)


class Turn(msgspec.Struct, kw_only=True):
    """What the model has said so far; whole once `stop` is there. `usage` is None until the provider reports.

    `given_up` when we left, while the provider may still have been at work.
    """

    model_call_id: UUID
    text: Text = msgspec.field(default_factory=Text)
    reasoning: Text = msgspec.field(default_factory=Text)
    calls: list[TurnCall] = msgspec.field(default_factory=list)
    usage: Usage | None = None
    stop: StopReason | None = None
    provider_data: Any | None = None
    first_token_at: float | None = None
    given_up: bool = False

    @property
    def first_token_age_s(self) -> float | None:
        """Seconds since the first token; None when none has come."""
        return None if self.first_token_at is None else time.monotonic() - self.first_token_at


class BegunStep(NamedTuple):
    """What the model reads, the row that meters its answer, and about how many tokens it reads."""

    history: list[HistoryMessage]
    model_call_id: UUID
    input_tokens: int


class Meter(Protocol):
    """Where model calls are counted."""

    async def begin_model_call(self, step: int, input_tokens: int) -> UUID: ...

    async def end_model_call(self, end: CallEnd) -> None: ...


async def take_turn(
    provider: Provider,
    request: ModelRequest,
    *,
    step: int,
    begun: BegunStep,
    emit: Callable[[Event], None],
    meter: Meter,
    limits: TurnLimits,
) -> Turn:
    """The model's whole answer; its model call, of which `begun` has the first, is left for the step's commit to close.

    Raises ProviderError when it cannot be had, after `limits.retries` retries of what may pass, or fewer when the
    provider's budget is spent or it asks for a longer pause than a run should wait. A failed or cancelled try is
    metered, and what it has shown is discarded before the next.
    """
    failures = 0
    _, model_call_id, input_tokens = begun
    while True:
        turn = Turn(model_call_id=model_call_id)
        try:
            await _listen(provider, request, turn, emit, limits)
            turn.usage = turn.usage or _estimate(turn, input_tokens)
            limits.budget.pay_back()
            return turn
        except ProviderError as error:
            await meter.end_model_call(_end(turn, "failed", _spent(turn, input_tokens), error.kind))
            failures += 1
            if not error.retryable or failures > limits.retries:
                raise
            if (reason := _against_retry(error, limits.budget)) is not None:
                raise ProviderError(error.kind, f"{error.message}; {reason}", status=error.status) from None
            pause_s = _pause(error, failures)
            _log.info(
                "model_call_repeated",
                kind=error.kind,
                status=error.status,
                failures=failures,
                pause_s=pause_s,
            )
            if turn.first_token_at is not None:
                emit(Discarded(reason=error.kind))
            await asyncio.sleep(pause_s)
            model_call_id = await meter.begin_model_call(step, input_tokens)
        except asyncio.CancelledError:
            await meter.end_model_call(_end(turn, "cancelled", _estimate(turn, input_tokens)))
            raise


async def _listen(
    provider: Provider, request: ModelRequest, turn: Turn, emit: Callable[[Event], None], limits: TurnLimits
) -> None:
    calls: dict[int, TurnCall] = {}
    patience = Patience(limits.first_token_s)
    try:
        async with patience, aclosing(provider.stream(request)) as stream:
            async for event in stream:
                match event:
                    case TextDelta(text):
                        turn.text.add(text)
                        emit(Token(content=text))
                    case ReasoningDelta(text):
                        turn.reasoning.add(text)
                        emit(Reasoning(content=text))
                    case CallDelta():
                        _take_call_delta(event, turn, calls, emit)
                    case UsageReport(usage):
                        turn.usage = _believable(usage)
                        continue
                    case Finish(reason, provider_data):
                        turn.stop, turn.provider_data = reason, provider_data
                        continue
                patience.renew(limits.silence_s)
                if turn.first_token_at is None:
                    turn.first_token_at = time.monotonic()
    except TimeoutError:
        turn.given_up = True
        raise ProviderError("timeout", f"the provider sent nothing for {patience.limit_s:g} s") from None
    if turn.stop is None:
        raise ProviderError("truncated", "the provider's stream ended early")


def _take_call_delta(event: CallDelta, turn: Turn, calls: dict[int, TurnCall], emit: Callable[[Event], None]) -> None:
    call = calls.get(event.index)
    if call is None:
        call = TurnCall(id=new_tool_call_id(), name=event.name or "", provider_call_id=event.provider_call_id)
        calls[event.index] = call
        turn.calls.append(call)
    call.text.add(event.delta)
    emit(ToolCallDelta(tool_call_id=call.id, name=call.name, delta=event.delta))


def _end(turn: Turn, state: Literal["failed", "cancelled"], usage: Usage, error_code: str | None = None) -> CallEnd:
    return CallEnd(
        model_call_id=turn.model_call_id,
        state=state,
        usage=usage,
        error_code=error_code,
        first_token_age_s=turn.first_token_age_s,
    )


def _against_retry(error: ProviderError, budget: RetryBudget) -> str | None:
    """Why a failure that may pass is not asked again all the same; None when it is, and the retry is paid for."""
    if error.retry_after_s is not None and error.retry_after_s > _LONGEST_PAUSE_S:
        return f"it asks to wait for {error.retry_after_s:.0f} s"
    return None if budget.take() else "it is not asked again, since too many requests to it are failing"


def _pause(error: ProviderError, failures: int) -> float:
    """Seconds: what the provider asked for, else exponential backoff; jittered, so that runs do not return in step."""
    if error.retry_after_s is not None:
        return error.retry_after_s + random.uniform(0, 0.1)  # noqa: S311
    backoff_s: float = min(_BACKOFF_S * 2 ** (failures - 1), _LONGEST_PAUSE_S)
    return backoff_s * random.uniform(0.5, 1)  # noqa: S311


def _believable(usage: Usage) -> Usage:
    """Whatever a provider says: beyond such figures a sum would not fit its column, and the run could never end."""
    figures = msgspec.structs.asdict(usage)
    estimated = figures.pop("estimated")
    return Usage(**{name: min(max(figure, 0), _MOST_TOKENS) for name, figure in figures.items()}, estimated=estimated)


def _estimate(turn: Turn, input_tokens: int) -> Usage:
    said = len(turn.text) + len(turn.reasoning) + sum(len(call.text) for call in turn.calls)
    if turn.usage is not None:  # Anthropic tells the input at the start, the output only at the end
        return msgspec.structs.replace(
            turn.usage, output_tokens=max(turn.usage.output_tokens, said // 4), estimated=True
        )
    return Usage(input_tokens=input_tokens, output_tokens=(said + 3) // 4, estimated=True)


def _spent(turn: Turn, input_tokens: int) -> Usage:
    """What a failed try cost: nothing when the provider refused it, or was not reached, before saying a word."""
    if turn.first_token_at is None and turn.usage is None and not turn.given_up:
        return Usage(estimated=True)
    return _estimate(turn, input_tokens)
