"""An HTTP client that shows a stream's very bytes, and whether it ended or broke."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit


class Frame(NamedTuple):
    """One SSE frame: its id, if it has one, and its event."""

    id: str | None
    event: dict[str, Any]

    @property
    def text(self) -> str:
        """The event's type, or what a token says."""
        return str(self.event["content"] if self.event["type"] == "token" else self.event["type"])


class RawStream:
    """One response. `body` holds what has come of it so far, without the chunks' own framing."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.ended_cleanly = False
        self._frames: list[Frame] = []
        self._parsed = 0

    @classmethod
    async def open(
        cls, url: str, headers: Mapping[str, str] | None = None, *, method: str = "GET", limit: int = 2**16
    ) -> Self:
        """Sends the request and returns once the head of the answer is there."""
        parts = urlsplit(url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=limit)
        stream = cls(reader, writer)
        lines = [f"{method} {parts.path}{'?' + parts.query if parts.query else ''} HTTP/1.1", f"host: {parts.netloc}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        try:
            async with asyncio.timeout(10):
                await stream._read_head()
        except BaseException:
            stream.close()
            raise
        return stream

    async def read_until(self, text: bytes, timeout_s: float = 10) -> bytes:
        """The body so far, once `text` is in it. Fails when the stream is over before."""
        async with asyncio.timeout(timeout_s):
            while text not in self.body:
                assert await self._read_chunk(), f"over after {self.body!r}"
        return self.body

    async def read_to_end(self, timeout_s: float = 10) -> list[Frame]:
        """All frames, once the stream is over, in whichever way: see `ended_cleanly`."""
        async with asyncio.timeout(timeout_s):
            while await self._read_chunk():
                pass
        return self.frames

    async def read_more(self) -> bool:
        """Whether the body has gone on; False once it is over, in whichever way."""
        return await self._read_chunk()

    @property
    def frames(self) -> list[Frame]:
        """The frames that are complete so far, without the opening comment and heartbeats."""
        end = self.body.rfind(b"\n\n")
        for block in self.body[self._parsed : max(end, self._parsed)].decode().split("\n\n"):
            fields = dict(line.split(": ", 1) for line in block.split("\n") if line and not line.startswith(":"))
            if fields:
                self._frames.append(Frame(fields.get("id"), json.loads(fields["data"])))
        self._parsed = max(end + 2, self._parsed) if end >= 0 else self._parsed
        return self._frames

    @property
    def local_port(self) -> int:
        """Our port, by which the server knows this connection."""
        return int(self._writer.get_extra_info("sockname")[1])

    def close(self) -> None:
        """Leaves, in mid-stream or not."""
        self._writer.close()

    async def _read_head(self) -> None:
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        self.status = int(head[0].split()[1])
        fields = (line.split(": ", 1) for line in head[1:] if line)
        self.headers = {name.lower(): value for name, value in fields}
        if self.headers.get("transfer-encoding") != "chunked":
            self.body = await self._reader.readexactly(int(self.headers.get("content-length", 0)))
            self.ended_cleanly = True
            self.close()

    async def _read_chunk(self) -> bool:
        if self.ended_cleanly:
            return False
        try:
            size = int(await self._reader.readuntil(b"\r\n"), 16)
            self.body += (await self._reader.readexactly(size + 2))[:-2]
        except (asyncio.IncompleteReadError, ConnectionError):
            self.close()
            return False
        if size == 0:
            self.ended_cleanly = True
            self.close()
        return size > 0
