"""HTTP itself: what a client may make the server hold, how long it may take, and what browsers are told."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

import httpx
import msgspec
import pytest

from api import body, server
from api.relay import sse
from api.relay.hub import Hub
from common.config import Settings
from common.ids import new_id
from tests.support.api_client import LiveApi, live_api, make_token, post_message, refusal_of
from tests.support.eventually import eventually
from tests.support.player import Player

LIVE = b"GET /health/live HTTP/1.1\r\nHost: x\r\n"
GET = LIVE + b"\r\n"
POST = b"POST /v1/agents HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
LENGTH = b"Content-Length: 100\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
DRIP = {LENGTH: b" ", CHUNKED: b"1\r\n \r\n"}


class Wire:
    """A connection on which a test says what it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.heard = b""

    async def say(self, data: bytes) -> None:
        """Sends; what the server no longer takes is lost."""
        self._writer.write(data)
        with suppress(ConnectionError):
            await self._writer.drain()

    async def hear(self, text: bytes) -> None:
        """Returns once `text` has come. Fails when the connection is over before."""
        async with asyncio.timeout(5):
            while text not in self.heard:
                data = await self._reader.read(65536)
                assert data, self.heard
                self.heard += data

    async def hear_all(self) -> bytes:
        """All that came on this connection, once the server has closed it."""
        async with asyncio.timeout(5):
            with suppress(ConnectionError):
                while data := await self._reader.read(65536):
                    self.heard += data
        return self.heard

    async def drip(self, data: bytes) -> bytes:
        """Says `data` over and over until the server closes the connection; all that came on it."""

        async def repeat() -> None:
            while True:
                await self.say(data)
                await asyncio.sleep(0.02)

        dripping = asyncio.create_task(repeat())
        try:
            return await self.hear_all()
        finally:
            dripping.cancel()

    def close(self) -> None:
        self._writer.close()


@asynccontextmanager
async def wire(api: LiveApi) -> AsyncIterator[Wire]:
    url = urlsplit(api.url)
    wire = Wire(*await asyncio.open_connection(url.hostname, url.port))
    try:
        yield wire
    finally:
        wire.close()


@pytest.fixture
async def player(api: LiveApi) -> Player:
    """A run that goes on."""
    resources = api.app.state.resources
    return await Player.begin(resources.pool, resources.log)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request has to be there within a fifth of a second."""
    monkeypatch.setattr(body, "BODY_S", 0.2)
    monkeypatch.setattr(server, "BODY_S", 0.2)


def bearer(api: LiveApi, player: Player | None = None) -> bytes:
    workspace_id = new_id() if player is None else player.workspace_id
    return f"Authorization: Bearer {make_token(api.settings.jwt_secret, (workspace_id, 'member'))}\r\n".encode()


def open_stream(api: LiveApi, player: Player, *more: bytes) -> bytes:
    head = f"GET /v1/runs/{player.id}/stream HTTP/1.1\r\nHost: x\r\n".encode()
    return head + bearer(api, player) + b"".join(more) + b"\r\n"


async def test_head_up_to_the_limits_is_answered(api: LiveApi) -> None:
    """60 KB of headers, or a hundred of them, are no reason to refuse; each request of a connection counts anew."""
    async with wire(api) as client:
        for head in (b"X: %b\r\n" % (b"a" * 60_000), b"X: a\r\n" * 99):
            client.heard = b""
            await client.say(LIVE + head + b"\r\n")
            await client.hear(b'{"status":"ok"}')
            assert client.heard.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "head",
    [
        LIVE + b"X: %b\r\n\r\n" % (b"a" * 66_000),
        LIVE + b"%b: a\r\n\r\n" % (b"a" * 66_000),
        LIVE + b"X: %b\r\n" % (b"a" * 10_000) * 7 + b"\r\n",
        LIVE + b"X: a\r\n" * 100 + b"\r\n",
        b"GET /health/live?%b HTTP/1.1\r\nHost: x\r\n\r\n" % (b"a" * 66_000),
    ],
    ids=["value", "name", "bytes", "count", "url"],
)
async def test_head_beyond_the_limits_is_refused(api: LiveApi, head: bytes) -> None:
    """431 for more than 64 KB or more than a hundred headers, and the connection is closed."""
    async with wire(api) as client:
        await client.say(head)
        assert (await client.hear_all()).startswith(b"HTTP/1.1 431 ")
    assert (await (await api.client()).get("/health/live")).status_code == 200


@pytest.mark.parametrize(
    ("head", "endless"),
    [
        (LIVE + b"X: ", b"a" * 10_000),
        (LIVE, b"a: b\r\n" * 1000),
        (b"", b"\r\n" * 5000),
        (POST + CHUNKED + b"1;", b"a" * 10_000),
        (POST + CHUNKED + b"0\r\n", b"a: b\r\n" * 1000),
        (POST + CHUNKED + b"0\r\nX: ", b"a" * 10_000),
    ],
    ids=["header", "headers", "blank lines", "chunk extension", "trailers", "trailer"],
)
async def test_endless_head_is_cut(api: LiveApi, head: bytes, endless: bytes) -> None:
    """Nothing that never becomes a request, or the end of one, is taken for longer than the limits say."""
    async with wire(api) as client:
        await client.say(head)
        for _ in range(100):
            await client.say(endless)
        await client.hear_all()


async def test_requests_that_wait_behind_one_are_counted(api: LiveApi) -> None:
    """32 of them are answered in turn; with one more the connection breaks."""
    async with wire(api) as client:
        await client.say(GET * 32 + LIVE + b"Connection: close\r\n\r\n")
        assert (await client.hear_all()).count(b"HTTP/1.1 200 ") == 33
    async with wire(api) as client:
        await client.say(GET * 34)
        assert (await client.hear_all()).count(b"HTTP/1.1 200 ") == 0


async def test_flood_of_requests_is_cut(api: LiveApi) -> None:
    """Who sends on without waiting for answers loses the connection, and nobody else notices."""
    async with wire(api) as client:
        for _ in range(100):
            await client.say(GET * 1000)
        assert (await client.hear_all()).count(b"HTTP/1.1 200 ") < 1000
    assert (await (await api.client()).get("/health/live")).status_code == 200


async def test_stream_with_a_request_behind_it_is_freed(
    api: LiveApi, player: Player, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that is gone ends the stream on it, also when another request waits for its end."""
    monkeypatch.setattr(sse, "HEARTBEAT_S", 0.05)
    hub: Hub = api.app.state.hub
    for leave in (True, False):
        async with wire(api) as client:
            await client.say(open_stream(api, player) + GET)
            await client.hear(b"id: 1-1\n")
            assert len(hub.streams) == 1
            if leave:
                client.close()
            else:
                [stream] = hub.streams
                stream.abort()
            await eventually(lambda: (hub.clients, len(hub.streams)) == (0, 0), 2)


async def test_nonsense_behind_a_stream_breaks_it(api: LiveApi, player: Player) -> None:
    """The refusal is not written into the answer that is being sent."""
    async with wire(api) as client:
        await client.say(open_stream(api, player))
        await client.hear(b"id: 1-1\n")
        await client.say(b"nonsense\r\n\r\n")
        heard = await client.hear_all()
    assert heard.count(b"HTTP/1.1 ") == 1
    assert not heard.endswith(b"0\r\n\r\n")


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("framing", DRIP, ids=["length", "chunked"])
async def test_body_that_does_not_come_is_a_408(api: LiveApi, framing: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """A body has a time limit, whether it stops or drips; the error has the one form, and the connection is closed."""
    for drip in (b"", DRIP[framing]):
        async with wire(api) as client:
            await client.say(POST + bearer(api) + framing + DRIP[framing])
            head, _, content = (await client.drip(drip) if drip else await client.hear_all()).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 408 ")
        assert b"connection: close" in head
        assert refusal_of(httpx.Response(408, content=content)) == (408, "request_timeout")
    assert caplog.records == []


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize(
    ("said", "drip"),
    [
        (b"", b""),
        (LIVE, b"a: b\r\n"),
        (GET, b"\r\n"),
        (POST + LENGTH, b" "),
        (POST + CHUNKED, b"1\r\n \r\n"),
        (LIVE + LENGTH, b""),
    ],
    ids=["silent", "head", "blank lines", "refused", "refused chunked", "unread"],
)
async def test_request_that_does_not_come_whole_holds_no_connection(api: LiveApi, said: bytes, drip: bytes) -> None:
    """The limit holds for what no handler waits for too: heads, and the bodies of requests that were answered."""
    async with wire(api) as client:
        await client.say(said)
        await (client.drip(drip) if drip else client.hear_all())


@pytest.mark.usefixtures("hasty")
@pytest.mark.slow
async def test_idle_connection_is_kept(api: LiveApi) -> None:
    """The client is the one who closes it: most do so after 5 s (httpx) to 60 s (load balancers)."""
    assert server.KEEP_ALIVE_S > 60
    async with wire(api) as connection:
        for _ in range(2):
            connection.heard = b""
            await connection.say(GET)
            await connection.hear(b"200 OK")
            with pytest.raises(TimeoutError):
                await connection.hear_all()


async def test_stream_outlives_a_body_that_does_not_come(
    api: LiveApi, player: Player, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer that needs no body is not held to the time limit for one."""
    monkeypatch.setattr(sse, "HEARTBEAT_S", 0.1)
    async with wire(api) as client:
        await client.say(open_stream(api, player, b"Content-Length: 5\r\n"))
        await client.hear(b"id: 1-1\n")
        for _ in range(5):
            client.heard = b""
            await client.hear(b": hb\n")
        await player.tell("still here")
        await client.hear(b"still here")


async def test_space_around_a_header_is_no_part_of_it(api: LiveApi, client: httpx.AsyncClient) -> None:
    """A cursor is read without the blanks and tabs around it, by streams and by posts that attach again."""
    conversation_id = (await client.post("/v1/conversations", json={})).json()["id"]
    run_id = (await post_message(client, conversation_id))["run"]["id"]
    authorization = f"Authorization: \t {client.headers['authorization']} \t\r\nHost: x\r\n"
    post = f"POST /v1/conversations/{conversation_id}/messages HTTP/1.1\r\nContent-Type: application/json\r\n"
    for request, cursor, rest in (
        (f"GET /v1/runs/{run_id}/stream HTTP/1.1\r\n", "1-1", "\r\n"),
        (f"{post}Accept: text/event-stream\r\n", f"{run_id}:1-1", 'Content-Length: 15\r\n\r\n{"content":"x"}'),
    ):
        async with wire(api) as connection:
            await connection.say(f"{request}{authorization}Last-Event-ID: \t {cursor} \t\r\n{rest}".encode())
            await connection.hear(b":ok\n")
            assert connection.heard.startswith(b"HTTP/1.1 200 ")


async def test_request_to_switch_protocols_is_answered_as_it_is(api: LiveApi, caplog: pytest.LogCaptureFixture) -> None:
    """The answer of HTTP/1.1, after which the connection is closed, and nothing in the log."""
    async with wire(api) as client:
        await client.say(LIVE + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\nother protocol")
        await client.say(b"\x00\xff")
        heard = await client.hear_all()
    assert heard.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close" in heard
    assert heard.endswith(b'{"status":"ok"}')
    assert caplog.records == []


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"", b"400"),
        (b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: short\r\n", b"400"),
        (b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", b"403"),
    ],
    ids=["no handshake", "a malformed one", "a place without a socket"],
)
async def test_socket_that_cannot_be_opened_is_refused(
    api: LiveApi, caplog: pytest.LogCaptureFixture, head: bytes, status: bytes
) -> None:
    """In HTTP, and the connection is closed; nothing is wrong with the server."""
    async with wire(api) as client:
        await client.say(LIVE + b"Connection: Upgrade\r\nUpgrade: websocket\r\n" + head + b"\r\n")
        heard = await client.hear_all()
    assert heard.startswith(b"HTTP/1.1 " + status)
    assert [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")] == []


async def test_upgrade_that_is_no_handshake_is_answered(api: LiveApi) -> None:
    """A request of another method, and one with a line that the socket's library does not take."""
    upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    for request in (LIVE.replace(b"GET", b"POST") + upgrade, LIVE + upgrade + b"X-Long: " + b"a" * 10_000 + b"\r\n"):
        async with wire(api) as client:
            await client.say(request + b"\r\n")
            assert (await client.hear_all()).startswith(b"HTTP/1.1 4")


async def test_browser_may_read_when_to_try_again(settings: Settings) -> None:
    """Pages of a listed origin see Retry-After; a preflight that is refused allows nothing."""
    async with live_api(msgspec.structs.replace(settings, cors_origins=("https://app.example",))) as api:
        client = await api.client()
        asked = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
        answer = await client.get("/v1/agents", headers={"Origin": "https://app.example"})
        refused = await client.options("/v1/agents", headers={**asked, "Access-Control-Request-Headers": "x-other"})
    assert "Retry-After" in answer.headers["access-control-expose-headers"]
    assert refused.status_code == 400
    assert not [name for name in refused.headers if name.startswith("access-control-allow")]
