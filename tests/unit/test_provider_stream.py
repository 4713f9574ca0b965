"""From the bytes of a provider's answer, as the network cuts them, to events."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anthropic
import httpx2
import msgspec
import pytest

from worker.providers.anthropic import AnthropicFold
from worker.providers.base import Finish, ProviderError, ProviderEvent, ReasoningDelta, TextDelta
from worker.providers.connection import read_stream
from worker.providers.errors import SdkErrors

_SDK = SdkErrors(anthropic.APIStatusError, anthropic.APITimeoutError, anthropic.APIConnectionError)
_STOP = b'data: {"type":"message_stop"}\n\n'


class Answer:
    """A response whose body comes in the given chunks, each by itself."""

    headers = httpx2.Headers({"content-type": "text/event-stream"})
    http_response = httpx2.Response(200)

    def __init__(self, chunks: list[bytes]) -> None:
        self._chunks = chunks

    async def iter_bytes(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            yield chunk


def delta(kind: str, text: str) -> bytes:
    """An event of the wire with a piece of text, or of thinking."""
    name = "text" if kind == "text_delta" else "thinking"
    return (
        b"data: "
        + msgspec.json.encode({"type": "content_block_delta", "index": 0, "delta": {"type": kind, name: text}})
        + b"\n\n"
    )


async def read(*chunks: bytes) -> list[ProviderEvent | ProviderError]:
    """The events of an answer, and its failure."""

    @asynccontextmanager
    async def respond() -> AsyncIterator[Answer]:
        yield Answer(list(chunks))

    stream = read_stream("anthropic", respond, AnthropicFold(), _SDK)
    events: list[ProviderEvent | ProviderError] = []
    try:
        while True:
            events.append(await anext(stream))
    except StopAsyncIteration:
        return events
    except ProviderError as error:
        return [*events, error]


async def test_text_that_comes_together_is_one_event() -> None:
    """However many pieces a read has brought, what follows them costs as much as for one."""
    assert (await read(delta("text_delta", "one ") + delta("text_delta", "two "), delta("text_delta", "three"), _STOP))[
        :-1
    ] == [TextDelta("one two "), TextDelta("three")]


async def test_order_of_what_comes_together_is_kept() -> None:
    """Text is not joined across anything else."""
    thinking = b'data: {"type":"content_block_start","index":0,"content_block":{"type":"thinking"}}\n\n'
    body = thinking + delta("text_delta", "a") + delta("thinking_delta", "b") + delta("text_delta", "c") + _STOP
    assert (await read(body))[:-1] == [TextDelta("a"), ReasoningDelta("b"), TextDelta("c")]


@pytest.mark.parametrize("failure", [b'data: {"type":"error","error":{"type":"overloaded_error"}}\n\n', b"data: {\n\n"])
async def test_text_before_a_failure_is_told(failure: bytes) -> None:
    """What came in the same read as the failure, before it, was said."""
    said, failed = await read(delta("text_delta", "so ") + delta("text_delta", "far") + failure)
    assert said == TextDelta("so far")
    assert isinstance(failed, ProviderError)


async def test_nothing_after_the_end_is_read() -> None:
    """What a provider sends behind its end, in the same read, is nothing of ours."""
    events = await read(delta("text_delta", "all") + _STOP + delta("text_delta", " and more"))
    assert [type(event) for event in events] == [TextDelta, Finish]
    assert events[0] == TextDelta("all")


async def test_thinking_is_given_back_whole() -> None:
    """A block of thinking, in however many pieces it came, goes back with the next request as one."""
    begin = b'data: {"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"I "}}\n\n'
    events = await read(begin, delta("thinking_delta", "think "), delta("thinking_delta", "so"), _STOP)
    finish = events[-1]
    assert isinstance(finish, Finish)
    assert finish.provider_data == [{"opaque": {"type": "thinking", "thinking": "I think so", "signature": ""}}]
