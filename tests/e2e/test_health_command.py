"""`throughline health`, which container health checks run."""

import asyncio
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from common.config import Settings
from common.devserver.readiness import free_port
from tests.support.eventually import eventually
from tests.support.processes import api_process, environment, worker_process

_COMMAND = Path(sys.executable).with_name("throughline")


async def test_health_of_api_tells_whether_it_serves(settings: Settings) -> None:
    """Status 0 while it is ready, 1 once it is gone."""
    async with api_process(environment(settings)) as api:
        env = environment(settings, PORT=str(urlsplit(api.url).port))
        assert await _health("api", env) == 0
        assert await api.stop() == 0
        assert await _health("api", env) == 1


async def test_health_of_worker_tells_whether_it_has_spoken(settings: Settings) -> None:
    """Status 1 before a worker has told what it offers, 0 afterwards."""
    env = environment(settings)
    assert await _health("worker", env) == 1
    async with worker_process(env):
        assert await _health("worker", env) == 0


async def test_worker_with_a_port_tells_its_figures_there(settings: Settings) -> None:
    """The process listens where WORKER_METRICS_PORT says, and tells what it has counted."""
    port = free_port()
    async with worker_process(environment(settings, WORKER_METRICS_PORT=str(port))), httpx.AsyncClient() as client:

        async def swept() -> bool:
            figures = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
            return re.search(r'^throughline_sweeps_total{outcome="ok"} [1-9]', figures, re.MULTILINE) is not None

        await eventually(swept, timeout_s=30)


async def test_health_of_worker_without_postgres_is_bad(settings: Settings, tmp_path: Path) -> None:
    """Status 1, without a traceback, when the database does not answer."""
    env = environment(settings, DATABASE_URL=f"postgresql://nobody@/none?host={tmp_path}")
    assert await _health("worker", env) == 1


async def _health(process: str, env: Mapping[str, str]) -> int:
    command = await asyncio.create_subprocess_exec(_COMMAND, "health", process, env=env, stderr=asyncio.subprocess.PIPE)
    _, errors = await command.communicate()
    assert errors == b""
    assert command.returncode is not None
    return command.returncode
