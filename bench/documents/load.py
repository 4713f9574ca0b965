"""The load generator of documents: `python -m bench.documents.load` reads a request from standard input, as one line.

A process of its own, so that its CPU is known and never counted with the server's.
"""

import asyncio
import sys
import time

import msgspec
import uvloop

from bench.documents.socket import Socket
from bench.documents.spec import Holding, Opening, OpeningResult, Request, Site, Typing
from bench.documents.typing_load import TypingLoad
from bench.documents.typist import text_of

_ANSWER_S = 20


async def run(request: Request) -> msgspec.Struct | list[str]:
    """Carries it out; the answer is to be written to standard output."""
    match request:
        case Typing():
            return await TypingLoad(request).run()
        case Opening():
            return await _open_one_by_one(request)
        case Holding():
            return await _hold(request)


async def _open_one_by_one(request: Opening) -> OpeningResult:
    result = OpeningResult(milliseconds=[], texts=[], failures=[])
    for number, path in enumerate(request.paths):
        begun = time.monotonic_ns()
        try:
            async with asyncio.timeout(_ANSWER_S):
                socket, update = await _open(request.site, number, path)
        except (OSError, TimeoutError) as error:
            result.failures.append(repr(error))
            continue
        result.milliseconds.append((time.monotonic_ns() - begun) / 1e6)
        socket.close()
        result.texts.append(text_of([update]))
    return result


async def _hold(request: Holding) -> list[str]:
    async with asyncio.timeout(_ANSWER_S * 3):
        sockets = [(await _open(request.site, number, path))[0] for number, path in enumerate(request.paths)]
    print("held", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)
    failures = [socket.failure for socket in sockets if socket.failure]
    for socket in sockets:
        socket.close()
    return failures


async def _open(site: Site, number: int, path: str) -> tuple[Socket, bytes]:
    """A connection, and what the document says; the baseline does not know that."""
    port = site.ports[number % len(site.ports)]
    socket = await Socket.open(port, path, site.headers, lambda _, __: None)
    if not site.stores:
        return socket, b""
    socket.ask()
    return socket, await socket.answer


if __name__ == "__main__":
    answer = uvloop.run(run(msgspec.json.decode(sys.stdin.buffer.readline(), type=Request)))
    sys.stdout.buffer.write(msgspec.json.encode(answer))
