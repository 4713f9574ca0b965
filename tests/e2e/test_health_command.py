"""`throughline health`, which container health checks run."""

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from common.config import Settings
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
