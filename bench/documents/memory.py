"""How much a process grows by documents that are open, and by connections."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec
import psutil

from bench.documents.spec import Holding, Site

_ROOT = Path(__file__).parents[2]
_HELD_S = 90
_SETTLED_S = 1.5
_SETTLE_S = 20.0
_LOOK_S = 0.25
_SAME_BYTES = 64 * 1024


class Growth(NamedTuple):
    """KB for each open document with one connection, and for each further connection to one."""

    document: float
    connection: float
    failures: list[str]


async def measure_growth(
    fresh: AbstractAsyncContextManager[tuple[psutil.Process, Site]], paths: list[str], shared: str, warm: str
) -> Growth:
    """Of a process that has served nobody but a first client: memory that was freed hides what is taken.

    All `paths` are opened once, then `shared` as often, and nobody leaves before the end.
    """
    failures: list[str] = []
    async with fresh as (process, site), _held(Holding(site=site, paths=[warm]), failures):
        empty = await _settled_rss(process)
        async with _held(Holding(site=site, paths=paths), failures):
            documents = await _settled_rss(process)
            async with _held(Holding(site=site, paths=[shared]), failures):
                one = await _settled_rss(process)
                async with _held(Holding(site=site, paths=[shared] * len(paths)), failures):
                    connections = await _settled_rss(process)
    share = len(paths) * 1024
    return Growth((documents - empty) / share, (connections - one) / share, failures)


@asynccontextmanager
async def _held(request: Holding, failures: list[str]) -> AsyncIterator[None]:
    """Until the end of the block the connections are open, held by a process of their own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bench.documents.load",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=_ROOT,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(msgspec.json.encode(request) + b"\n")
        async with asyncio.timeout(_HELD_S):
            if await process.stdout.readline() != b"held\n":
                raise SystemExit("the load generator could not open its connections")
        yield
        process.stdin.close()
        failures += msgspec.json.decode(await process.stdout.read(), type=list[str])
        await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _settled_rss(process: psutil.Process) -> int:
    """Its RSS once that has stayed the same for a while."""
    last, same_s, waited_s = 0, 0.0, 0.0
    while same_s < _SETTLED_S and waited_s < _SETTLE_S:
        await asyncio.sleep(_LOOK_S)
        rss = process.memory_info().rss
        same_s = same_s + _LOOK_S if abs(rss - last) <= _SAME_BYTES else 0.0
        last = rss if same_s == 0.0 else last
        waited_s += _LOOK_S
    return int(process.memory_info().rss)
