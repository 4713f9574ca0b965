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
from bench.processes import settled_rss

_ROOT = Path(__file__).parents[2]
_HELD_S = 90


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
        empty = await settled_rss(process)
        async with _held(Holding(site=site, paths=paths), failures):
            documents = await settled_rss(process)
            async with _held(Holding(site=site, paths=[shared]), failures):
                one = await settled_rss(process)
                async with _held(Holding(site=site, paths=[shared] * len(paths)), failures):
                    connections = await settled_rss(process)
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
