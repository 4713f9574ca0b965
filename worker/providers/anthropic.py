"""Anthropic's Messages API."""

from collections.abc import AsyncGenerator, Iterator
from typing import Any

import anthropic
import msgspec

from common.config import Settings
from common.model.messages import Usage
from worker.providers.anthropic_request import build_body, takes_sampling
from worker.providers.base import (
    Finish,
    ModelRequest,
    ProviderEvent,
    ReasoningDelta,
    StopReason,
    TextDelta,
    ToolCallDelta,
    UsageReport,
)
from worker.providers.connection import http_options, read_stream
from worker.providers.errors import SdkErrors, from_event
from worker.providers.replay import ReplayRecorder

_SDK_ERRORS = SdkErrors(anthropic.APIStatusError, anthropic.APITimeoutError, anthropic.APIConnectionError)
_VERSION_WITH_SAMPLING = "2023-06-01"
_STOP_REASONS: dict[str | None, StopReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


class AnthropicProvider:
    """Claude models. Raises ProviderError as `Provider` says."""

    name = "anthropic"

    def __init__(self, settings: Settings) -> None:
        self._client = anthropic.AsyncAnthropic(
            api_key=settings.anthropic_api_key,
            base_url=settings.anthropic_base_url,
            max_retries=0,
            http_client=anthropic.DefaultAioHttpClient(**http_options(settings)),
        )

    def stream(self, request: ModelRequest) -> AsyncGenerator[ProviderEvent, None]:
        """Asks the model."""
        # The whole body is ours: the SDK would convert each message once more, and warn about models by name.
        return read_stream(
            self.name,
            lambda: self._client.messages.with_streaming_response.create(
                model="",
                max_tokens=1,
                messages=[],
                stream=True,
                extra_body=build_body(request),
                extra_headers=_headers(request.model),
            ),
            AnthropicFold(),
            _SDK_ERRORS,
        )

    async def close(self) -> None:
        """Frees the connections."""
        await self._client.close()


def _headers(model: str) -> dict[str, str]:
    """The API's version of 2026 refuses temperature and top_p, for models, too, that take them."""
    return {"anthropic-version": _VERSION_WITH_SAMPLING} if takes_sampling(model) else {}


class _Block(msgspec.Struct):
    type: str = ""
    text: str = ""
    id: str | None = None
    name: str | None = None
    input: dict[str, Any] | None = None
    thinking: str = ""
    signature: str = ""
    data: str = ""


class _Delta(msgspec.Struct):
    type: str = ""
    text: str = ""
    thinking: str = ""
    signature: str = ""
    partial_json: str = ""
    stop_reason: str | None = None


class _OutputDetails(msgspec.Struct):
    thinking_tokens: int | None = None


class _Usage(msgspec.Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    output_tokens_details: _OutputDetails | None = None


class _Message(msgspec.Struct):
    usage: _Usage | None = None


class _Event(msgspec.Struct):
    """All event types in one struct: a type that is not known yet decodes like any other, and is passed over."""

    type: str
    index: int = 0
    message: _Message | None = None
    content_block: _Block | None = None
    delta: _Delta | None = None
    usage: _Usage | None = None
    error: dict[str, Any] | None = None


_decode_event = msgspec.json.Decoder(_Event).decode


class AnthropicFold:
    """Events of one answer. Only `message_stop`, the last one, finishes it."""

    def __init__(self) -> None:
        self.finished = False
        self._calls: dict[int, int] = {}
        self._opaque: dict[int, dict[str, Any]] = {}
        self._thoughts: dict[int, list[str]] = {}
        """Of each block; added up one by one, long ones would cost the square of their length."""
        self._replay = ReplayRecorder()
        self._usage = _Usage()
        self._stop_reason: str | None = None

    def feed(self, payload: bytes) -> Iterator[ProviderEvent]:
        """The events of one payload."""
        event = _decode_event(payload)
        match event.type:
            case "content_block_delta" if event.delta is not None:
                yield from self._delta(event.index, event.delta)
            case "content_block_start" if event.content_block is not None:
                yield from self._start(event.index, event.content_block)
            case "message_start" if event.message is not None and event.message.usage is not None:
                yield self._report(event.message.usage)
            case "message_delta":
                if event.delta is not None:
                    self._stop_reason = event.delta.stop_reason
                if event.usage is not None:
                    yield self._report(event.usage)
            case "message_stop":
                self.finished = True
                for index, thoughts in self._thoughts.items():
                    self._opaque[index]["thinking"] = "".join(thoughts)
                yield Finish(_STOP_REASONS.get(self._stop_reason, "other"), self._replay.data())
            case "error":
                raise from_event("anthropic", {"error": event.error})

    def end(self) -> Iterator[ProviderEvent]:
        """Nothing: an answer without `message_stop` is not whole."""
        return iter(())

    def _start(self, index: int, block: _Block) -> Iterator[ProviderEvent]:
        match block.type:
            case "text" if block.text:
                yield self._text(block.text)
            case "tool_use":
                call = self._calls[index] = len(self._calls)
                self._replay.call(call)
                arguments = msgspec.json.encode(block.input).decode() if block.input else ""
                yield ToolCallDelta(call, block.id, block.name, arguments)
            case "thinking":
                self._keep(index, {"type": "thinking", "thinking": "", "signature": block.signature})
                self._thoughts[index] = [block.thinking]
                if block.thinking:
                    yield ReasoningDelta(block.thinking)
            case "redacted_thinking":
                self._keep(index, {"type": "redacted_thinking", "data": block.data})

    def _delta(self, index: int, delta: _Delta) -> Iterator[ProviderEvent]:
        match delta.type:
            case "text_delta":
                yield self._text(delta.text)
            case "input_json_delta" if delta.partial_json and index in self._calls:
                yield ToolCallDelta(self._calls[index], None, None, delta.partial_json)
            case "thinking_delta" if index in self._thoughts:
                self._thoughts[index].append(delta.thinking)
                yield ReasoningDelta(delta.thinking)
            case "signature_delta" if index in self._opaque:
                self._opaque[index]["signature"] += delta.signature

    def _text(self, text: str) -> TextDelta:
        self._replay.text(len(text))
        return TextDelta(text)

    def _keep(self, index: int, item: dict[str, Any]) -> None:
        self._opaque[index] = item
        self._replay.opaque(item)

    def _report(self, usage: _Usage) -> UsageReport:
        """Merges figures: `message_delta` repeats, cumulatively, only some of those of `message_start`."""
        known = self._usage
        for field in _Usage.__struct_fields__:
            if (figure := getattr(usage, field)) is not None:
                setattr(known, field, figure)
        cached, written = known.cache_read_input_tokens or 0, known.cache_creation_input_tokens or 0
        details = known.output_tokens_details
        return UsageReport(
            Usage(
                input_tokens=(known.input_tokens or 0) + cached + written,
                output_tokens=known.output_tokens or 0,
                cached_input_tokens=cached,
                cache_write_tokens=written,
                reasoning_tokens=(details.thinking_tokens or 0) if details else 0,
            )
        )
