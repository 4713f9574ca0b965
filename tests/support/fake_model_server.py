"""A model provider over real HTTP, for tests and the bench: Anthropic Messages, chat completions and Responses.

In a test: `async with FakeModelServer() as server: server.script(Reply(text="hello"))`, with the provider's base URL
set to `server.url`. Alone: `python -m tests.support.fake_model_server PORT`. A model named `bench?n=60&rate=20` gets
60 tokens at 20 a second (0: at once), each of them the nanoseconds of the monotonic clock at its sending, and a
space; one named `plan?…` follows its plan (`planned_model`). A history that the real services would refuse is refused
with a 400.
"""

import asyncio
import gzip
import sys
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Iterator
from typing import Any, Self, cast
from urllib.parse import parse_qs

import msgspec

from tests.support.model_history_rules import find_violation
from tests.support.model_script import Reply
from tests.support.model_wires import WIRES, error_body
from tests.support.planned_model import PREFIX, planned_reply

DEFAULT_REPLY = Reply(text="Hello from the fake model.")
_TOKEN = "@token@"


class ReceivedRequest(msgspec.Struct, frozen=True):
    """What a client sent; header names in lower case."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


class FakeModelServer:
    """Answers from its script, notes the requests, and counts what is open."""

    def __init__(self, port: int = 0) -> None:
        self.requests: list[ReceivedRequest] = []
        self.open_connections = 0
        self.open_streams = 0
        self.abandoned_streams = 0
        """Answers whose client left before their end."""
        self._port = port
        self._scripts: defaultdict[str | None, deque[Reply]] = defaultdict(deque)
        self._connections: set[_Connection] = set()
        self._listener: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """The base URL, without a path; the wires are found with and without `/v1` before them."""
        return f"http://127.0.0.1:{self._port}"

    def script(self, *replies: Reply, model: str | None = None) -> None:
        """Adds answers, given in order; those for `model` go to it alone. After the last: DEFAULT_REPLY."""
        self._scripts[model].extend(replies)

    def next_reply(self, model: str) -> Reply:
        """Takes the next answer for `model` off the script."""
        for script in (self._scripts[model], self._scripts[None]):
            if script:
                return script.popleft()
        return DEFAULT_REPLY

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(lambda: _Connection(self), "127.0.0.1", self._port, backlog=2000)
        self._port = self._listener.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._listener is not None
        self._listener.close()
        for connection in list(self._connections):
            connection.close()
        while self._connections:
            await asyncio.sleep(0.001)
        await self._listener.wait_closed()

    async def serve_forever(self) -> None:
        """Serves until it is cancelled."""
        assert self._listener is not None
        await self._listener.serve_forever()

    def opened(self, connection: "_Connection") -> None:
        """A client has connected."""
        self._connections.add(connection)
        self.open_connections += 1

    def closed(self, connection: "_Connection") -> None:
        """A client has gone."""
        self._connections.discard(connection)
        self.open_connections -= 1


class _Connection(asyncio.Protocol):
    """One connection, one request at a time. A protocol rather than streams: it learns at once of a client's end."""

    def __init__(self, server: FakeModelServer) -> None:
        self._server = server
        self._buffer = b""
        self._answering: asyncio.Task[None] | None = None
        self._can_write = asyncio.Event()
        self._can_write.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # No assertion of the type: uvloop's transports are none of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        self._server.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answering is not None:
            self._answering.cancel()
        self._server.closed(self)

    def pause_writing(self) -> None:
        self._can_write.clear()

    def resume_writing(self) -> None:
        self._can_write.set()

    def close(self) -> None:
        """Cuts the connection off."""
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        request_line, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", 0))
        if len(rest) < length:
            return
        self._buffer = rest[length:]
        path = request_line.split(" ")[1]
        self._answering = asyncio.create_task(self._answer(path, headers, rest[:length]))

    async def _answer(self, path: str, headers: dict[str, str], payload: bytes) -> None:
        wire = WIRES.get(path.removeprefix("/v1"))
        if wire is None:
            self._send_error(path, Reply(status=404))
            return
        body = msgspec.json.decode(payload, type=dict[str, Any])
        self._server.requests.append(ReceivedRequest(path, headers, body))
        model = str(body["model"])
        self._server.open_streams += 1
        try:
            if violation := find_violation(path, body):
                self._send_error(path, Reply(status=400), violation)
            elif model.startswith("bench?"):
                await self._stream_bench(wire(Reply(text=_TOKEN), model), model)
            elif model.startswith(PREFIX):
                await self._send_reply(path, planned_reply(model, body), model)
            else:
                await self._send_reply(path, self._server.next_reply(model), model)
        except asyncio.CancelledError:
            self._server.abandoned_streams += 1
            raise
        finally:
            self._server.open_streams -= 1

    async def _send_reply(self, path: str, reply: Reply, model: str) -> None:
        if reply.status != 200 or reply.body is not None:
            self._send_error(path, reply)
            return
        if reply.hang_after == 0:
            await asyncio.Event().wait()
        self._send_head(chunked=reply.framing == "chunked", gzip=reply.gzip)
        frames = [reply.raw] if reply.raw is not None else list(WIRES[path.removeprefix("/v1")](reply, model))
        if reply.gzip:
            frames = [gzip.compress(b"".join(frames))]
        async for piece in _pace(_cut(frames, reply), reply):
            await self._can_write.wait()
            self._transport.write(_chunk(piece) if reply.framing == "chunked" else piece)
        if reply.cut_at is not None or reply.framing == "close":
            self._transport.close()
        else:
            self._transport.write(b"0\r\n\r\n")

    async def _stream_bench(self, frames: Iterator[bytes], model: str) -> None:
        options = parse_qs(model.partition("?")[2])
        count, rate = int(options["n"][0]), float(options.get("rate", ["0"])[0])
        whole = b"\x00".join(frames).split(_TOKEN.encode(), 1)
        before, _, start = whole[0].rpartition(b"\x00")
        end, _, after = whole[1].partition(b"\x00")
        self._send_head(chunked=True)
        self._transport.write(_chunk(before.replace(b"\x00", b"")))
        due = time.monotonic()
        for _ in range(count):
            if rate:
                due += 1 / rate
                await asyncio.sleep(max(0.0, due - time.monotonic()))
            await self._can_write.wait()
            self._transport.write(_chunk(b"%s%d %s" % (start, time.monotonic_ns(), end)))
        self._transport.write(_chunk(after.replace(b"\x00", b"")) + b"0\r\n\r\n")

    def _send_head(self, *, chunked: bool, gzip: bool = False) -> None:
        framing = b"transfer-encoding: chunked" if chunked else b"connection: close"
        if gzip:
            framing += b"\r\ncontent-encoding: gzip"
        self._transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n%s\r\n\r\n" % framing
        )

    def _send_error(self, path: str, reply: Reply, message: str = "scripted failure") -> None:
        content = error_body(path, reply.status, message) if reply.body is None else reply.body
        payload = content.encode() if isinstance(content, str) else msgspec.json.encode(content)
        kind = "text/html" if isinstance(content, str) else "application/json"
        headers = {"content-type": kind, "content-length": str(len(payload)), **reply.headers}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._transport.write(f"HTTP/1.1 {reply.status} Scripted\r\n{lines}\r\n".encode() + payload)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _cut(frames: list[bytes], reply: Reply) -> list[bytes]:
    """The frames that are sent: cut off at `cut_at`, and apart at every `split` bytes. None is empty."""
    if reply.cut_at is None and reply.split is None:
        return [frame for frame in frames if frame]
    body = b"".join(frames)[: reply.cut_at]
    size = reply.split or max(1, len(body))
    return [body[at : at + size] for at in range(0, len(body), size)]


async def _pace(frames: list[bytes], reply: Reply) -> AsyncIterator[bytes]:
    for index, piece in enumerate(frames):
        if index == reply.hang_after:
            break
        if reply.pause_s:
            await asyncio.sleep(reply.pause_s)
        yield piece
    if reply.hang_after is not None:
        await asyncio.Event().wait()


async def _main(port: int) -> None:
    async with FakeModelServer(port) as server:
        print(f"listening on {server.url}", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    import uvloop

    uvloop.run(_main(int(sys.argv[1])))
