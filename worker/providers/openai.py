"""OpenAI's own models, by the Responses API.

Not chat completions: only here is reasoning visible (as summaries), and only here can a reasoning model take up its
thoughts again after a tool call, encrypted since nothing is stored at OpenAI. Servers that merely speak OpenAI's
chat completions belong to `openai_compatible`.
"""

from collections.abc import AsyncGenerator, Iterator
from typing import Any

import msgspec
import openai

from common.config import Settings
from common.model.messages import Usage
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
from worker.providers.openai_request import build_body
from worker.providers.replay import ReplayRecorder

_SDK_ERRORS = SdkErrors(openai.APIStatusError, openai.APITimeoutError, openai.APIConnectionError)
_INCOMPLETE: dict[str | None, StopReason] = {"max_output_tokens": "length", "content_filter": "content_filter"}


class OpenAIProvider:
    """OpenAI models. Raises ProviderError as `Provider` says."""

    name = "openai"

    def __init__(self, settings: Settings) -> None:
        self._client = openai.AsyncOpenAI(
            api_key=settings.openai_api_key,
            base_url=settings.openai_base_url,
            max_retries=0,
            http_client=openai.DefaultAioHttpClient(**http_options(settings)),
        )
        # Here and not in the first run: it imports for a tenth of a second, in which no other run goes on.
        self._create = self._client.responses.with_streaming_response.create

    def stream(self, request: ModelRequest) -> AsyncGenerator[ProviderEvent, None]:
        """Asks the model."""
        # The whole body is ours: the SDK would convert each item of the history once more.
        return read_stream(
            self.name,
            lambda: self._create(stream=True, extra_body=build_body(request)),
            ResponsesFold(),
            _SDK_ERRORS,
        )

    async def close(self) -> None:
        """Frees the connections."""
        await self._client.close()


class _Item(msgspec.Struct):
    type: str = ""
    id: str | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str = ""
    summary: list[dict[str, Any]] = []
    encrypted_content: str | None = None


class _InputDetails(msgspec.Struct):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None


class _OutputDetails(msgspec.Struct):
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct):
    input_tokens: int = 0
    output_tokens: int = 0
    input_tokens_details: _InputDetails | None = None
    output_tokens_details: _OutputDetails | None = None


class _Incomplete(msgspec.Struct):
    reason: str | None = None


class _Response(msgspec.Struct):
    usage: _Usage | None = None
    error: dict[str, Any] | None = None
    incomplete_details: _Incomplete | None = None


class _Event(msgspec.Struct):
    """All event types in one struct: a type that is not known yet decodes like any other, and is passed over."""

    type: str
    delta: Any = None
    output_index: int = 0
    summary_index: int = 0
    item: _Item | None = None
    response: _Response | None = None
    code: str | None = None
    message: str | None = None
    error: dict[str, Any] | None = None


_decode_event = msgspec.json.Decoder(_Event).decode


class ResponsesFold:
    """Events of one answer. Only `response.completed` and `response.incomplete` finish it."""

    def __init__(self) -> None:
        self.finished = False
        self._calls: dict[int, int] = {}
        self._without_arguments: set[int] = set()
        self._replay = ReplayRecorder()
        self._refused = False

    def feed(self, payload: bytes) -> Iterator[ProviderEvent]:
        """The events of one payload."""
        event = _decode_event(payload)
        match event.type:
            case "response.output_text.delta":
                yield self._text(event.delta)
            case "response.refusal.delta":
                self._refused = True
                yield self._text(event.delta)
            case "response.reasoning_summary_text.delta" | "response.reasoning_text.delta":
                yield ReasoningDelta(event.delta)
            case "response.reasoning_summary_part.added" if event.summary_index > 0:
                yield ReasoningDelta("\n\n")
            case "response.function_call_arguments.delta" if event.output_index in self._calls:
                self._without_arguments.discard(event.output_index)
                yield ToolCallDelta(self._calls[event.output_index], None, None, event.delta)
            case "response.output_item.added" if event.item is not None:
                yield from self._begin(event.output_index, event.item)
            case "response.output_item.done" if event.item is not None:
                yield from self._complete(event.output_index, event.item)
            case "response.completed" | "response.incomplete":
                yield from self._finish(event.type, event.response or _Response())
            case "response.failed" if event.response is not None:
                raise from_event("openai", {"error": event.response.error})
            case "response.failed" | "error":
                raise from_event("openai", {"error": event.error or {"code": event.code, "message": event.message}})

    def end(self) -> Iterator[ProviderEvent]:
        """Nothing: an answer without its last event is not whole."""
        return iter(())

    def _begin(self, output_index: int, item: _Item) -> Iterator[ProviderEvent]:
        if item.type == "function_call":
            call = self._calls[output_index] = len(self._calls)
            if not item.arguments:
                self._without_arguments.add(output_index)
            self._replay.call(call)
            yield ToolCallDelta(call, item.call_id, item.name, item.arguments)

    def _complete(self, output_index: int, item: _Item) -> Iterator[ProviderEvent]:
        if item.type == "function_call" and output_index in self._without_arguments:
            yield ToolCallDelta(self._calls[output_index], None, None, item.arguments)
        elif item.type == "reasoning" and item.encrypted_content:
            # Without its encrypted content an item is only a reference to what OpenAI was told not to store.
            self._replay.opaque(
                {
                    "type": "reasoning",
                    "id": item.id,
                    "summary": item.summary,
                    "encrypted_content": item.encrypted_content,
                }
            )

    def _finish(self, kind: str, response: _Response) -> Iterator[ProviderEvent]:
        if response.usage is not None:
            yield UsageReport(_normalise(response.usage))
        self.finished = True
        yield Finish(self._reason(kind, response), self._replay.data())

    def _reason(self, kind: str, response: _Response) -> StopReason:
        if kind == "response.incomplete":
            details = response.incomplete_details
            return _INCOMPLETE.get(details.reason if details else None, "other")
        if self._calls:
            return "tool_calls"
        return "content_filter" if self._refused else "stop"

    def _text(self, text: str) -> TextDelta:
        self._replay.text(len(text))
        return TextDelta(text)


def _normalise(usage: _Usage) -> Usage:
    given, produced = usage.input_tokens_details, usage.output_tokens_details
    return Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cached_input_tokens=(given.cached_tokens or 0) if given else 0,
        cache_write_tokens=(given.cache_write_tokens or 0) if given else 0,
        reasoning_tokens=(produced.reasoning_tokens or 0) if produced else 0,
    )
