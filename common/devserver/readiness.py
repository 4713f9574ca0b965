"""Asking a server that has just been started whether it is there."""

import asyncio
import socket
from pathlib import Path

from common.devserver.child import Child


async def answers(child: Child, path: Path, question: bytes, answer: bytes, timeout_s: float) -> bool:
    """True once the server at the socket `path` replies with `answer`; False when it ends or stays silent."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    while child.returncode is None and loop.time() < deadline:
        if await _reply(path, question, len(answer)) == answer:
            return True
        await asyncio.sleep(0.01)
    return False


async def until_ready(host: str, port: int) -> None:
    """Returns once the API there says that it can serve."""
    while True:
        if await is_ready(host, port):
            return
        await asyncio.sleep(0.05)


async def is_ready(host: str, port: int) -> bool:
    """Whether the API there says that it can serve."""
    request = b"GET /health/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    try:
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(request)
                status = await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
    return status.split()[1:2] == [b"200"]


def free_port() -> int:
    """A loopback port that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def last_lines(log: Path, count: int = 12) -> str:
    """The end of a log file."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-count:])


async def _reply(path: Path, question: bytes, size: int) -> bytes:
    try:
        async with asyncio.timeout(1):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                writer.write(question)
                return await reader.readexactly(size)
            finally:
                writer.close()
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return b""
