"""The way from an SDK's client to events: connection limits, raw bytes, errors by kind. Same for every provider."""

import asyncio
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, aclosing, suppress
from functools import cache
from typing import Protocol, TypedDict

import aiohttp
import httpx2
import msgspec

from common.config import Settings
from worker.providers.base import ProviderError, ProviderEvent, TextDelta
from worker.providers.errors import SdkErrors, from_exception, truncated
from worker.providers.sse import SseSplitter

_KEEPALIVE_S = 30
_DRAIN_S = 0.05


class Fold(Protocol):
    """Turns the payloads of one stream into events."""

    finished: bool
    """Whether `Finish` has been given; nothing of what follows is read."""

    def feed(self, payload: bytes) -> Iterable[ProviderEvent]:
        """The events of one payload. Raises ProviderError when it reports a failure."""
        ...

    def end(self) -> Iterable[ProviderEvent]:
        """The events due when the body ended cleanly; without a `Finish` among them the stream is truncated."""
        ...


class StreamedResponse(Protocol):
    """What both SDKs answer to `with_streaming_response`."""

    @property
    def headers(self) -> httpx2.Headers: ...

    @property
    def http_response(self) -> httpx2.Response: ...

    def iter_bytes(self) -> AsyncIterator[bytes]: ...


class HttpOptions(TypedDict):
    """Arguments of both SDKs' aiohttp clients."""

    timeout: httpx2.Timeout
    limits: httpx2.Limits
    verify: ssl.SSLContext
    follow_redirects: bool


def http_options(settings: Settings) -> HttpOptions:
    """Bounds connecting alone, name lookup included (`pool`): the caller times the events."""
    return HttpOptions(
        timeout=httpx2.Timeout(None, connect=settings.provider_connect_s, pool=settings.provider_connect_s),
        # As many connections as there are runs: 0, since the transport takes None for its default of 100.
        limits=httpx2.Limits(max_connections=0, keepalive_expiry=_KEEPALIVE_S),
        verify=_tls(),
        # A redirect would carry the key and the conversation to another place.
        follow_redirects=False,
    )


@cache
def _tls() -> ssl.SSLContext:
    """One for all providers: loading the certificates takes tens of milliseconds."""
    return httpx2.create_ssl_context()


async def read_stream(
    provider: str,
    open_response: Callable[[], AbstractAsyncContextManager[StreamedResponse]],
    fold: Fold,
    sdk: SdkErrors,
) -> AsyncGenerator[ProviderEvent, None]:
    """Opens the response and yields its events up to `Finish`. Raises ProviderError; leaving closes the connection."""
    streaming = False
    try:
        async with open_response() as response:
            streaming = True
            _check_is_stream(provider, response)
            splitter = SseSplitter()
            async with aclosing(_read_body(response)) as chunks:  # type: ignore[type-var]
                async for chunk in chunks:
                    for event in _joined(fold, splitter.feed(chunk)):
                        yield event
                    if fold.finished:
                        await _drain(chunks)
                        return
            for event in fold.end():
                yield event
            if not fold.finished:
                raise truncated(provider)
    except msgspec.MsgspecError:
        raise ProviderError("server", f"{provider} sent an event that cannot be read") from None
    except ProviderError:
        raise
    except Exception as error:
        known = from_exception(error, sdk, provider, streaming=streaming)
        if known is None:
            raise
        # Without its cause: SDK errors carry the request, and with it the key.
        raise known from None


def _read_body(response: StreamedResponse) -> AsyncIterator[bytes]:
    """The body as it comes. From aiohttp's own reader where that can be reached: the SDK's response hands each piece
    on by six generators, an eighth of what a busy worker does. Elsewhere, or compressed, from the SDK.
    """
    stream = getattr(response.http_response.stream, "_stream", None)
    opened = getattr(stream, "_aiohttp_response", None)
    if isinstance(opened, aiohttp.ClientResponse) and "content-encoding" not in response.headers:
        return _read_content(opened.content)
    return response.iter_bytes()


async def _read_content(content: aiohttp.StreamReader) -> AsyncGenerator[bytes, None]:
    while chunk := await content.readany():
        yield chunk


def _joined(fold: Fold, payloads: Iterable[bytes]) -> Iterator[ProviderEvent]:
    """The events of payloads that came together, up to `Finish`; text that came in several of them is one.

    Where there is more to do than can be done, more comes together: then this is most of what is saved.
    """
    texts: list[str] = []
    try:
        for payload in payloads:
            for event in fold.feed(payload):
                if type(event) is TextDelta:
                    texts.append(event.text)
                    continue
                if texts:
                    yield TextDelta("".join(texts))
                    texts.clear()
                yield event
            if fold.finished:
                return
    except (ProviderError, msgspec.MsgspecError):
        if texts:  # it was said before the failure
            yield TextDelta("".join(texts))
        raise
    if texts:
        yield TextDelta("".join(texts))


async def _drain(chunks: AsyncIterator[bytes]) -> None:
    """Reads what ends the body, if it comes at once: only then can the connection serve the next step."""
    with suppress(TimeoutError, httpx2.HTTPError, aiohttp.ClientError, OSError):
        async with asyncio.timeout(_DRAIN_S):
            async for _ in chunks:
                pass


def _check_is_stream(provider: str, response: StreamedResponse) -> None:
    """Refuses JSON and HTML, which mean a wrong address or a proxy's page; others are read as a stream."""
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in ("application/json", "text/html"):
        raise ProviderError("server", f"{provider} answered with {kind} instead of a stream")
