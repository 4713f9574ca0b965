"""What every provider makes of errors, cuts and clients that leave."""

import asyncio
import socket
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from tests.conformance.conftest import KEY, MODELS, ask, build_provider, collect
from tests.support.eventually import eventually
from tests.support.fake_model_server import FakeModelServer
from tests.support.model_script import MidwayError, Reply
from worker.providers.base import ErrorKind, Finish, Provider, ProviderError, ProviderEvent, TextDelta


async def fail(provider: Provider) -> tuple[ProviderError, list[ProviderEvent]]:
    """The error that an answer ends in, and the events before it."""
    events: list[ProviderEvent] = []
    with pytest.raises(ProviderError) as caught:
        await read_into(events, provider)
    return caught.value, events


async def read_into(events: list[ProviderEvent], provider: Provider) -> None:
    async for event in provider.stream(ask(provider)):
        events.append(event)  # noqa: PERF401


@pytest.mark.parametrize(
    ("status", "kind", "retryable"),
    [
        (400, "rejected", False),
        (401, "auth", False),
        (403, "auth", False),
        (404, "not_found", False),
        (408, "timeout", True),
        (413, "rejected", False),
        (429, "rate_limited", True),
        (500, "server", True),
        (502, "server", True),
        (503, "overloaded", True),
        (529, "overloaded", True),
    ],
)
async def test_error_answer(
    provider: Provider, server: FakeModelServer, status: int, kind: ErrorKind, retryable: bool
) -> None:
    """Each status has its kind, and is asked once: retrying is not the provider's part."""
    server.script(Reply(status=status))
    error, events = await fail(provider)
    assert (error.kind, error.retryable, error.status, events) == (kind, retryable, status, [])
    assert len(server.requests) == 1
    assert KEY not in str(error)


async def test_error_answer_with_retry_after(provider: Provider, server: FakeModelServer) -> None:
    """The pause that the provider asks for is understood in seconds, as a date, and in milliseconds."""
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    server.script(
        Reply(status=429, headers={"retry-after": "7"}),
        Reply(status=529, headers={"retry-after": date}),
        Reply(status=429, headers={"retry-after-ms": "250"}),
        Reply(status=429),
    )
    pauses = [(await fail(provider))[0].retry_after_s for _ in range(4)]
    assert pauses[0] == 7
    assert pauses[1] == pytest.approx(90, abs=3)
    assert pauses[2:] == [0.25, None]


async def test_error_answer_with_key_in_it(provider: Provider, server: FakeModelServer) -> None:
    """A key that the provider repeats in its explanation does not get into the error."""
    server.script(Reply(status=400, body={"error": {"type": "invalid_request_error", "message": f"no {KEY}"}}))
    assert KEY not in (await fail(provider))[0].message


async def test_context_too_long(provider: Provider, server: FakeModelServer) -> None:
    """A history beyond the model's window has a kind of its own."""
    body = {"error": {"type": "invalid_request_error", "message": "prompt is too long: 210000 tokens > 200000 maximum"}}
    server.script(Reply(status=400, body=body))
    error, _ = await fail(provider)
    assert (error.kind, error.retryable) == ("context_length", False)


async def test_page_instead_of_stream(provider: Provider, server: FakeModelServer) -> None:
    """A page or a JSON answer with status 200, say from a wrong address, is an error that says so."""
    server.script(Reply(body="<html>welcome</html>"), Reply(body={"object": "list", "data": []}))
    for kind in ("text/html", "application/json"):
        error, _ = await fail(provider)
        assert error.kind == "server"
        assert kind in error.message


async def test_html_error_page(provider: Provider, server: FakeModelServer) -> None:
    """A proxy's error page has the kind of its status; its text is not quoted."""
    server.script(Reply(status=502, body="<html>bad gateway</html>"))
    error, _ = await fail(provider)
    assert error.kind == "server"
    assert "<html>" not in error.message


async def test_empty_stream(provider: Provider, server: FakeModelServer) -> None:
    """A stream without any event is a truncated one, not an empty answer."""
    server.script(Reply(raw=b""))
    assert (await fail(provider))[0].kind == "truncated"


@pytest.mark.parametrize(
    ("sent", "kind"),
    [("overloaded", {"overloaded", "server"}), ("server", {"server"}), ("rejected", {"rejected"})],
)
async def test_error_in_mid_stream(
    provider: Provider, server: FakeModelServer, sent: MidwayError, kind: set[ErrorKind]
) -> None:
    """An error inside a stream that began well ends it with its kind, after what was sent before."""
    server.script(Reply(text="so far", error=sent))
    error, events = await fail(provider)
    assert error.kind in kind
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == "so far"
    assert not any(isinstance(event, Finish) for event in events)


async def test_unreadable_event(provider: Provider, server: FakeModelServer) -> None:
    """Bytes that are no JSON are an error of the provider's server."""
    server.script(Reply(raw=b"data: {not json\n\n"))
    assert (await fail(provider))[0].kind == "server"


@pytest.mark.parametrize("framing", ["chunked", "close"])
async def test_connection_cut(provider: Provider, server: FakeModelServer, framing: str) -> None:
    """A connection that ends in mid-answer, hard or as if complete, is a truncated stream."""
    for cut_at in range(0, 260, 20):
        server.script(Reply(text="one two three", cut_at=cut_at, framing=framing))  # type: ignore[arg-type]
        error, events = await fail(provider)
        assert (error.kind, error.retryable) == ("truncated", True)
        assert not any(isinstance(event, Finish) for event in events)


async def test_500_twice_then_success(provider: Provider, server: FakeModelServer) -> None:
    """A failed answer leaves nothing behind that troubles the next one."""
    server.script(Reply(status=500), Reply(status=500), Reply(text="well"))
    assert [(await fail(provider))[0].kind for _ in range(2)] == ["server", "server"]
    assert (await collect(provider, ask(provider)))[-1] == Finish("stop")


@pytest.mark.parametrize("name", MODELS)
async def test_nobody_listens(name: str) -> None:
    """A refused connection is a retryable error of the kind `connection`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        provider = build_provider(name, f"http://127.0.0.1:{free.getsockname()[1]}")
        error, _ = await fail(provider)
        await provider.close()
    assert (error.kind, error.retryable) == ("connection", True)


async def test_stream_closed(provider: Provider, server: FakeModelServer) -> None:
    """Closing the generator closes the connection at once."""
    server.script(Reply(text="one two three", hang_after=7))
    async with aclosing(provider.stream(ask(provider))) as events:
        await anext(events)
        assert server.open_streams == 1
    await eventually(lambda: (server.open_connections, server.abandoned_streams) == (0, 1))


async def test_task_cancelled(provider: Provider, server: FakeModelServer) -> None:
    """Cancelling the task that waits for the next event closes the connection at once."""
    server.script(Reply(text="one two three", hang_after=2))
    task = asyncio.create_task(collect(provider, ask(provider)))
    await eventually(lambda: server.open_streams == 1, timeout_s=2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await eventually(lambda: server.open_connections == 0, timeout_s=2)


async def test_task_cancelled_before_headers(provider: Provider, server: FakeModelServer) -> None:
    """A request whose answer has not begun is given up at once, too."""
    server.script(Reply(text="late", hang_after=0))
    task = asyncio.create_task(collect(provider, ask(provider)))
    await eventually(lambda: server.open_streams == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await eventually(lambda: server.open_connections == 0, timeout_s=2)


async def test_generator_never_started(provider: Provider, server: FakeModelServer) -> None:
    """A stream that nobody reads asks nothing."""
    await provider.stream(ask(provider)).aclose()
    assert server.requests == []
