"""The fake model behind both servers, as a process of its own."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import psutil

from common.devserver.child import spawn
from common.devserver.readiness import free_port

_ROOT = Path(__file__).parents[1]
_START_S = 10


class FakeModel(NamedTuple):
    """Each token that it sends is the nanoseconds of CLOCK_MONOTONIC at its sending, and a space."""

    url: str
    process: psutil.Process


@asynccontextmanager
async def fake_model() -> AsyncIterator[FakeModel]:
    """The server, taking requests."""
    port = free_port()
    child = spawn(
        [sys.executable, "-m", "tests.support.fake_model_server", str(port)],
        on_parent_death=signal.SIGKILL,
        cwd=_ROOT,
        stdout=subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(_START_S):
            await _until_listening(port)
        yield FakeModel(f"http://127.0.0.1:{port}", psutil.Process(child.pid))
    finally:
        await child.stop(signal.SIGTERM, grace_s=5)


def model_name(tokens: int, rate: float) -> str:
    """The model that sends so many tokens, at `rate` a second, the first of them after one interval."""
    return f"bench?n={tokens}&rate={rate:g}"


async def _until_listening(port: int) -> None:
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.02)
        else:
            writer.close()
            return
