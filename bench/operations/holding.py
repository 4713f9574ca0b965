"""Streams that are open and silent: whether all are served, and how much the API grows by each."""

import asyncio
import sys
from pathlib import Path
from typing import NamedTuple

import msgspec

from bench.operations.spec import Holding, HoldingResult
from bench.processes import settled_rss
from bench.servers import Server

_ROOT = Path(__file__).parents[2]


class Held(NamedTuple):
    """`kib` is the memory of the API for each stream; `faults` are streams that did not get their run's end."""

    kib: float
    faults: int


async def hold_streams(server: Server, request: Holding) -> Held:
    """Raises SystemExit when the streams cannot be opened."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "bench.operations.load"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=_ROOT,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    output = process.stdout
    api = server.processes["api"]

    async def hears(word: str) -> None:
        async with asyncio.timeout(request.patience_s):
            if (await output.readline()).decode().strip() != word:
                raise SystemExit(f"the load generator never came to: {word}")

    try:
        process.stdin.write(msgspec.json.encode(request) + b"\n")
        await hears("began")
        before = await settled_rss(api)
        process.stdin.write(b"\n")
        await hears("held")
        kib = (await settled_rss(api) - before) / 1024 / request.streams
        server.check()
        process.stdin.write(b"\n")
        result = msgspec.json.decode(await output.read(), type=HoldingResult)
        return Held(kib, request.streams - result.ended + len(result.failures))
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
