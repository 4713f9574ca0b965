"""Servers that speak OpenAI's chat completions: OpenRouter, Z.ai, and any other by configuration."""

from collections.abc import AsyncGenerator, Iterator
from typing import Any

import msgspec
import openai

from common.config import Settings
from common.model.messages import Usage
from worker.providers.base import (
    Finish,
    ModelRequest,
    ProviderError,
    ProviderEvent,
    ReasoningDelta,
    StopReason,
    TextDelta,
    ToolCallDelta,
    UsageReport,
)
from worker.providers.chat_request import Dialect, build_body
from worker.providers.connection import http_options, read_stream
from worker.providers.errors import SdkErrors, from_event

_SDK_ERRORS = SdkErrors(openai.APIStatusError, openai.APITimeoutError, openai.APIConnectionError)
_STOP_REASONS: dict[str, StopReason] = {
    "stop": "stop",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "length": "length",
    "model_context_window_exceeded": "length",
    "content_filter": "content_filter",
    "sensitive": "content_filter",
}
_FAILURES = ("error", "network_error")


class CompatibleProvider:
    """One such server. Raises ProviderError as `Provider` says."""

    def __init__(
        self, settings: Settings, *, name: str, base_url: str, api_key: str | None, dialect: Dialect = "plain"
    ) -> None:
        self.name = name
        self._dialect: Dialect = dialect
        self._headers = _headers(with_key=bool(api_key))
        self._client = openai.AsyncOpenAI(
            # The SDK insists on a key; a server that needs none is told nothing of it.
            api_key=api_key or "none",
            base_url=base_url,
            max_retries=0,
            http_client=openai.DefaultAioHttpClient(**http_options(settings)),
        )
        # Here and not in the first run: it imports for tens of milliseconds, in which no other run goes on.
        self._create = self._client.chat.completions.with_streaming_response.create

    def stream(self, request: ModelRequest) -> AsyncGenerator[ProviderEvent, None]:
        """Asks the model."""
        # The whole body is ours: the SDK would convert each message once more.
        return read_stream(
            self.name,
            lambda: self._create(
                model="",
                messages=[],
                stream=True,
                extra_body=build_body(request, self._dialect),
                extra_headers=self._headers,
            ),
            ChatFold(self.name),
            _SDK_ERRORS,
        )

    async def close(self) -> None:
        """Frees the connections."""
        await self._client.close()


def _headers(*, with_key: bool) -> dict[str, Any]:
    """Takes out what the SDK reads from the environment and means for OpenAI alone."""
    unwanted = ["OpenAI-Organization", "OpenAI-Project"] + ([] if with_key else ["Authorization"])
    return dict.fromkeys(unwanted, openai.omit)


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: Any = None


class _Call(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    tool_calls: list[_Call] | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    finish_reason: str | None = None


class _PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None


class _CompletionDetails(msgspec.Struct):
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None


_decode_chunk = msgspec.json.Decoder(_Chunk).decode


class _OpenCall(msgspec.Struct):
    """A call as far as it has come."""

    index: int
    id: str | None
    arguments: list[str]
    """Its pieces: added up one by one, a long text would cost the square of its length."""


class ChatFold:
    """Events of one answer, finished by `[DONE]`, or by a clean end of the body after a finish reason."""

    def __init__(self, provider: str) -> None:
        self.finished = False
        self._provider = provider
        self._open: dict[int | None, _OpenCall] = {}
        self._latest: _OpenCall | None = None
        self._calls = 0
        self._refused = False
        self._finish_reason: str | None = None

    def feed(self, payload: bytes) -> Iterator[ProviderEvent]:
        """The events of one payload."""
        if payload.strip() == b"[DONE]":
            yield from self.end()
            return
        chunk = _decode_chunk(payload)
        if chunk.error is not None:
            raise from_event(self._provider, {"error": chunk.error})
        for choice in (chunk.choices or ())[:1]:
            if choice.delta is not None:
                yield from self._delta(choice.delta)
            if choice.finish_reason:
                self._finish_reason = choice.finish_reason
        if chunk.usage is not None:
            yield UsageReport(_normalise(chunk.usage))

    def end(self) -> Iterator[ProviderEvent]:
        """`Finish`, if a finish reason has come: not every server sends `[DONE]`."""
        if self._finish_reason is None:
            return
        if self._finish_reason in _FAILURES:
            raise ProviderError("server", f"{self._provider} failed in the middle of its answer")
        self.finished = True
        yield Finish(self._reason(self._finish_reason))

    def _delta(self, delta: _Delta) -> Iterator[ProviderEvent]:
        if reasoning := delta.reasoning or delta.reasoning_content:
            yield ReasoningDelta(reasoning)
        if delta.content:
            yield TextDelta(delta.content)
        if delta.refusal:
            self._refused = True
            yield TextDelta(delta.refusal)
        for piece in delta.tool_calls or ():
            yield self._tool_call(piece, piece.function or _Function())

    def _tool_call(self, piece: _Call, function: _Function) -> ToolCallDelta:
        arguments = _as_text(function.arguments)
        call = self._latest if piece.index is None else self._open.get(piece.index)
        if call is None or _begins_another(call, piece.id, function.name, arguments):
            call = _OpenCall(self._calls, piece.id, [arguments])
            self._calls += 1
            self._open[piece.index] = self._latest = call
            return ToolCallDelta(call.index, piece.id, function.name or "", arguments)
        self._latest = call
        call.arguments.append(arguments)
        return ToolCallDelta(call.index, None, None, arguments)

    def _reason(self, given: str) -> StopReason:
        """Servers say `stop` after calls, or `tool_calls` without any: the calls themselves decide."""
        reason = _STOP_REASONS.get(given, "other")
        if reason in ("stop", "tool_calls"):
            if self._calls:
                return "tool_calls"
            return "content_filter" if self._refused else "stop"
        return reason


def _begins_another(call: _OpenCall, id: str | None, name: str | None, arguments: str) -> bool:
    """Whether a piece that seems to continue `call` is the next one: some servers give all calls one index or id.

    Only a piece with a name can begin a call, and one with the same id (or none) only if `call` is complete.
    """
    if not name:
        return False
    if id and call.id and id != call.id:
        return True
    return bool(arguments) and _is_json(call.arguments)


def _is_json(pieces: list[str]) -> bool:
    last = next((piece.rstrip() for piece in reversed(pieces) if not piece.isspace() and piece), "")
    if not last.endswith("}"):  # All arguments are objects; to decode them at each piece would cost the square as well.
        return False
    try:
        msgspec.json.decode("".join(pieces))
    except msgspec.DecodeError:
        return False
    return True


def _as_text(arguments: Any) -> str:
    """Arguments are JSON in a string; some servers send the object itself."""
    if arguments is None or isinstance(arguments, str):
        return arguments or ""
    return msgspec.json.encode(arguments).decode()


def _normalise(usage: _Usage) -> Usage:
    given, produced = usage.prompt_tokens_details, usage.completion_tokens_details
    return Usage(
        input_tokens=usage.prompt_tokens or 0,
        output_tokens=usage.completion_tokens or 0,
        cached_input_tokens=(given.cached_tokens or 0) if given else 0,
        cache_write_tokens=(given.cache_write_tokens or 0) if given else 0,
        reasoning_tokens=(produced.reasoning_tokens or 0) if produced else 0,
    )
