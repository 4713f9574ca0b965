"""`python -m api` as a process: its start, its socket, its end."""

import asyncio
import os
import signal
import socket
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from common.config import Settings
from common.eventlog.log import EventLog
from common.store.database import Pool
from tests.support.api_client import make_token
from tests.support.player import Player
from tests.support.raw_stream import RawStream

ROOT = Path(__file__).parents[2]


@pytest.fixture
async def listener() -> AsyncIterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


async def start(settings: Settings, listener: socket.socket, **changes: str) -> Process:
    environment = {
        "PATH": os.environ["PATH"],
        "DATABASE_URL": settings.database_url,
        "REDIS_URL": settings.redis_url,
        "JWT_SECRET": settings.jwt_secret,
        "THROUGHLINE_FD": str(listener.fileno()),
        **changes,
    }
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "api",
        cwd=ROOT,
        env=environment,
        pass_fds=[listener.fileno()],
        stdout=PIPE,
        stderr=STDOUT,
    )


async def ended(process: Process) -> tuple[int, str]:
    async with asyncio.timeout(60):
        output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_process_breaks_its_streams_and_ends(
    settings: Settings, pool: Pool, log: EventLog, listener: socket.socket, number: signal.Signals
) -> None:
    """On SIGTERM and SIGINT open streams break at once, and the process ends with status 0 and without an error."""
    player = await Player.begin(pool, log)
    process = await start(settings, listener)
    token = make_token(settings.jwt_secret, (player.workspace_id, "member"))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1/runs/{player.id}/stream"
    stream = await RawStream.open(url, {"authorization": f"Bearer {token}"})
    await stream.read_until(b"id: 1-1\n")
    clock = asyncio.get_running_loop().time
    begun = clock()
    process.send_signal(number)
    await stream.read_to_end(2)
    assert not stream.ended_cleanly
    assert clock() - begun < 0.5
    status, output = await ended(process)
    assert status == 0, output
    assert clock() - begun < 3
    assert "Traceback" not in output
    assert '"level":"error"' not in output


WRONG = [
    ({"JWT_SECRET": ""}, 2, "JWT_SECRET"),
    ({"DATABASE_URL": ""}, 2, "DATABASE_URL"),
    ({"PORT": "many"}, 2, "PORT"),
    ({"THROUGHLINE_FD": "77"}, 2, "THROUGHLINE_FD"),
    ({"DATABASE_ROLE": "postgres"}, 2, "refusing to serve"),
]


async def test_process_says_in_one_line_why_it_does_not_start(settings: Settings, listener: socket.socket) -> None:
    """A wrong setting ends it with status 2, without a traceback."""
    processes = [await start(settings, listener, **changes) for changes, _, _ in WRONG]
    for process, (changes, status, says) in zip(processes, WRONG, strict=True):
        code, output = await ended(process)
        assert code == status, (changes, output)
        last = output.strip().split("\n")[-1]
        assert last.startswith("api: ")
        assert says in last
        assert "Traceback" not in output
