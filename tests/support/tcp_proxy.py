"""A proxy between a client and a server, whose faults a test switches on and off.

    async with TcpProxy(servers.redis_url) as proxy:
        ... a client of proxy.url ...
        proxy.switch(Mode.BLACK_HOLE)   # from now on silence, on every connection
        proxy.switch(Mode.PASS)         # new connections work; those that are broken stay broken

It lives in the test's event loop: whoever blocks the loop stops the network too.
"""

import asyncio
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import Enum, StrEnum
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self
from urllib.parse import parse_qs, urlsplit

_LINGER_NONE = struct.pack("ii", 1, 0)
_BACKLOG = 1024
_CHUNK = 65536


class Mode(StrEnum):
    """What happens to a connection."""

    PASS = "pass"
    """Every byte is passed on."""
    DROP = "drop"
    """Closed (FIN) on both sides; nobody listens any more: connecting is refused."""
    RESET = "reset"
    """Broken with a RST to the client, which one that connects gets at once."""
    BLACK_HOLE = "black hole"
    """Both sides stay open and hear nothing from each other, not even that one has gone. New ones are accepted."""
    HALF_OPEN = "half open"
    """The server has lost its side, the client's stays open and silent. New ones are accepted, and silent as well."""
    LOSE_REPLIES = "lose replies"
    """Requests arrive and are obeyed, what is answered is lost; also for new connections."""
    LOSE_REQUESTS = "lose requests"
    """What the server says arrives, what the client says is lost; also for new connections."""


class Way(Enum):
    """A direction."""

    REQUESTS = "from the client to the server"
    REPLIES = "from the server to the client"


_SWALLOWED = {
    Mode.BLACK_HOLE: {Way.REQUESTS, Way.REPLIES},
    Mode.HALF_OPEN: {Way.REQUESTS, Way.REPLIES},
    Mode.LOSE_REPLIES: {Way.REPLIES},
    Mode.LOSE_REQUESTS: {Way.REQUESTS},
}


class _Trigger(NamedTuple):
    fragment: bytes
    way: Way
    mode: Mode


class _Cut(NamedTuple):
    way: Way
    mode: Mode
    left: int


class TcpProxy:
    """Listens on a loopback port in front of a server, which `upstream` names.

    `upstream` is a URL of Redis or Postgres (TCP or unix socket), a socket's path, or a host and a port.
    """

    def __init__(self, upstream: str | Path | tuple[str, int]) -> None:
        self._template = upstream if isinstance(upstream, str) else ""
        self._upstream = _address_of(upstream) if isinstance(upstream, str) else upstream
        self.mode = Mode.PASS
        self.delay_s = 0.0
        """How long each piece of data is held back, either way. Order is kept."""
        self.accepted = 0
        """How many connections were accepted since the start."""
        self.passed = {Way.REQUESTS: 0, Way.REPLIES: 0}
        """How many bytes were passed on since the start."""
        self.swallowed = {Way.REQUESTS: 0, Way.REPLIES: 0}
        """How many bytes were lost on purpose since the start."""
        self._links: set[_Link] = set()
        self._triggers: list[_Trigger] = []
        self._cut: _Cut | None = None
        self._listener: socket.socket | None = None
        self._place: socket.socket | None = None

    async def __aenter__(self) -> Self:
        # Bound, never listening: it keeps the port ours while connections are to be refused.
        self._place = _bound(0)
        self._listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._refuse()
        links = list(self._links)
        for link in links:
            link.close()
        if links:
            await asyncio.wait([link.ended for link in links])
        if self._place is not None:
            self._place.close()

    @property
    def host(self) -> str:
        return "127.0.0.1"

    @property
    def port(self) -> int:
        assert self._place is not None, "the proxy is not open"
        return int(self._place.getsockname()[1])

    @property
    def url(self) -> str:
        """The upstream's URL by way of the proxy; for a proxy that was made with a URL."""
        return self.url_of(self._template)

    def url_of(self, template: str) -> str:
        """A URL of Redis or Postgres by way of the proxy: user, database and options stay, the address changes."""
        parts = urlsplit(template)
        address = f"{self.host}:{self.port}"
        if parts.scheme == "unix":
            return f"redis://{address}/{parse_qs(parts.query).get('db', ['0'])[0]}"
        user, at, _ = parts.netloc.rpartition("@")
        others = [part for part in parts.query.split("&") if part and not part.startswith(("host=", "port="))]
        return parts._replace(netloc=f"{user}{at}{address}", query="&".join(others)).geturl()

    @property
    def open(self) -> int:
        """How many connections there are, silent ones among them."""
        return len(self._links)

    def switch(self, mode: Mode, *, existing: bool = True, new: bool = True) -> None:
        """From now on `mode` holds for the connections there are and those to come, or one kind of them.

        A connection only ever gets worse: PASS changes none that is broken or has lost a byte.
        """
        if existing:
            for link in list(self._links):
                link.suffer(mode)
        if not new:
            return
        self.mode = mode
        if mode is Mode.DROP:
            self._refuse()
        elif self._listener is None:
            self._listen()

    def after(self, fragment: bytes, mode: Mode, way: Way = Way.REQUESTS) -> None:
        """Once, and for its connection only: `mode` as soon as a piece with `fragment` in it has been passed on."""
        self._triggers.append(_Trigger(fragment, way, mode))

    def cut_after(self, count: int, way: Way, mode: Mode = Mode.DROP) -> None:
        """Once: lets `count` bytes of this direction pass, of all connections together; the last one gets `mode` then.

        With 0, the next bytes are lost and their connection gets `mode`.
        """
        self._cut = _Cut(way, mode, count)

    def _listen(self) -> None:
        self._listener = _bound(self.port)
        self._listener.listen(_BACKLOG)
        asyncio.get_running_loop().add_reader(self._listener.fileno(), self._accept, self._listener)

    def _refuse(self) -> None:
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener.fileno())
            self._listener.close()
            self._listener = None

    def _accept(self, listener: socket.socket) -> None:
        with suppress(BlockingIOError):
            while True:
                client, _ = listener.accept()
                self.accepted += 1
                link = _Link(self, client)
                self._links.add(link)
                link.suffer(self.mode)

    def _share(self, link: "_Link", way: Way, data: bytes) -> tuple[bytes, Mode | None]:
        """What of `data` passes, and what happens to the link once it has."""
        if way in link.deaf:
            self.swallowed[way] += len(data)
            return b"", None
        fault = None
        if self._cut is not None and self._cut.way is way:
            whole, data = data, data[: self._cut.left]
            self.swallowed[way] += len(whole) - len(data)
            self._cut = self._cut._replace(left=self._cut.left - len(data))
            if self._cut.left == 0:
                fault, self._cut = self._cut.mode, None
        for trigger in self._triggers:
            if trigger.way is way and trigger.fragment in data:
                self._triggers.remove(trigger)
                fault = trigger.mode
                break
        self.passed[way] += len(data)
        return data, fault


class _Link:
    """One client's connection, and ours to the server for it."""

    def __init__(self, proxy: TcpProxy, client: socket.socket) -> None:
        self._proxy = proxy
        self._socket = client
        self._client: asyncio.StreamWriter | None = None
        self._server: asyncio.StreamWriter | None = None
        self.deaf: set[Way] = set()
        self.ended = asyncio.create_task(self._run(), name="proxied connection")
        self.ended.add_done_callback(self._clean)

    def suffer(self, mode: Mode) -> None:
        """Puts the link into `mode`, at once."""
        if mode is Mode.RESET:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NONE)
        if mode in (Mode.RESET, Mode.DROP):
            self.close()
        self.hush(mode)
        if mode is Mode.HALF_OPEN and self._server is not None:
            self._server.transport.abort()

    def hush(self, mode: Mode) -> None:
        """Loses from now on what `mode` loses."""
        if mode is not Mode.PASS:
            self.deaf |= _SWALLOWED.get(mode, set(Way))

    def close(self) -> None:
        """Closes both sides, as they are."""
        self.ended.cancel()
        for writer in (self._client, self._server):
            if writer is not None:
                writer.transport.abort()

    def _clean(self, _: asyncio.Task[None]) -> None:
        self.close()
        if self._client is None:
            self._socket.close()
        self._proxy._links.discard(self)

    async def _run(self) -> None:
        try:
            await self._pass_on()
        except* OSError:
            pass  # One side has gone, and now goes the other.

    async def _pass_on(self) -> None:
        self._socket.setblocking(False)
        from_client, self._client = await asyncio.open_connection(sock=self._socket)
        self._client.transport.set_write_buffer_limits(0)
        if self.deaf == set(Way):
            await self._pump(Way.REQUESTS, from_client, self._client)
        from_server, self._server = await _connect(self._proxy._upstream)
        self._server.transport.set_write_buffer_limits(0)
        async with asyncio.TaskGroup() as pumps:
            pumps.create_task(self._pump(Way.REQUESTS, from_client, self._server))
            pumps.create_task(self._pump(Way.REPLIES, from_server, self._client))

    async def _pump(self, way: Way, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await self._read(way, source):
            if self._proxy.delay_s:
                await asyncio.sleep(self._proxy.delay_s)
            data, fault = self._proxy._share(self, way, data)
            sink.write(data)
            if fault is not None:
                self.hush(fault)  # Before the other side can have answered.
            with self._unless_deaf(way):
                await sink.drain()
            if fault is not None:
                self.suffer(fault)
        if sink.can_write_eof():
            sink.write_eof()

    async def _read(self, way: Way, source: asyncio.StreamReader) -> bytes:
        """The next piece, empty at the end; who hears nothing from a side does not hear that it has gone either."""
        data = b""
        with self._unless_deaf(way):
            data = await source.read(_CHUNK)
        if not data and way in self.deaf:
            await asyncio.Event().wait()
        return data

    @contextmanager
    def _unless_deaf(self, way: Way) -> Iterator[None]:
        try:
            yield
        except OSError:
            if way not in self.deaf:
                raise


async def _connect(upstream: Path | tuple[str, int]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if isinstance(upstream, Path):
        return await asyncio.open_unix_connection(upstream)
    return await asyncio.open_connection(*upstream)


def _bound(port: int) -> socket.socket:
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.setblocking(False)
    bound.bind(("127.0.0.1", port))
    return bound


def _address_of(url: str) -> Path | tuple[str, int]:
    parts = urlsplit(url)
    options = parse_qs(parts.query)
    if parts.scheme == "unix":
        return Path(parts.path)
    port = parts.port or int(options.get("port", ["5432" if parts.scheme.startswith("postgres") else "6379"])[0])
    host = options.get("host", [parts.hostname or "127.0.0.1"])[0]
    return Path(host) / f".s.PGSQL.{port}" if host.startswith("/") else (host, port)
