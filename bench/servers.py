"""What is measured, as real processes: Throughline with its stores, and the baseline."""

import asyncio
import os
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import psutil

from bench.spec import Target
from common.config import Settings
from common.devserver.child import spawn
from common.devserver.mint_token import DEVELOPMENT_WORKSPACE, mint_token
from common.devserver.readiness import free_port, until_ready
from common.ids import new_id
from tests.support.processes import api_process, environment, worker_process
from tests.support.servers import Servers, running_servers

_ROOT = Path(__file__).parents[1]
_START_S = 30
_PLENTY = 10**9
_TOKEN_LIFETIME_S = 24 * 3600


class Server(NamedTuple):
    """A target and its processes by name: `worker`, `api`, `postgres`, `valkey`, or `baseline`.

    `check` raises RuntimeError, with what it printed, when one of them has ended. `environment` starts more of them.
    """

    target: Target
    processes: dict[str, psutil.Process]
    check: Callable[[], None] = lambda: None
    redis_url: str = ""
    environment: Mapping[str, str] = MappingProxyType({})


@asynccontextmanager
async def throughline(model_url: str, workers: int = 1, **more: Any) -> AsyncIterator[Server]:
    """One API and `workers` as the Procfile starts them, with stores that fsync what they commit.

    `more` are settings. The second worker is called `worker 2`.
    """
    async with running_servers(durable=True) as stores:
        settings = await settings_on(
            stores,
            worker_max_runs=1_000,
            anthropic_base_url=model_url,
            anthropic_api_key="none is needed",
            # A single user is the whole load: what they do is counted, and never refused.
            limit_requests_burst=_PLENTY,
            limit_user_requests_burst=_PLENTY,
            limit_queued_runs=_PLENTY,
            limit_user_queued_runs=_PLENTY,
            limit_streams=_PLENTY,
            limit_user_streams=_PLENTY,
            **more,
        )
        env = environment(settings)
        async with AsyncExitStack() as stack:
            running = {"api": await stack.enter_async_context(api_process(env))}
            for number in range(1, workers + 1):
                name = "worker" if number == 1 else f"worker {number}"
                running[name] = await stack.enter_async_context(worker_process(env))

            def check() -> None:
                for process in running.values():
                    process.check_running()

            processes = {name: psutil.Process(process.pid) for name, process in running.items()}
            yield Server(
                target_of(settings, running["api"].url),
                {**processes, **store_processes()},
                check,
                stores.redis_url,
                env,
            )


async def settings_on(stores: Servers, **more: Any) -> Settings:
    """Those of a system with a new database; `more` are settings, too."""
    database_url = await stores.create_database()
    return Settings(
        database_url=database_url,
        migration_database_url=database_url,
        redis_url=stores.redis_url,
        queue_redis_url=stores.redis_url,
        jwt_secret=secrets.token_hex(32),
        log_level="warning",
        **more,
    )


@asynccontextmanager
async def baseline(model_url: str) -> AsyncIterator[Server]:
    """`bench.baseline`, one process."""
    env = {"ANTHROPIC_BASE_URL": model_url, "ANTHROPIC_API_KEY": "none is needed"}
    async with under_uvicorn("bench.baseline:app", env) as server:
        yield server


@asynccontextmanager
async def under_uvicorn(app: str, env: dict[str, str], *options: str) -> AsyncIterator[Server]:
    """A baseline's `app` under uvicorn, with uvloop and httptools."""
    port = free_port()
    child = spawn(
        [sys.executable, "-m", "uvicorn", app, f"--port={port}", "--log-level=warning", *options],
        on_parent_death=signal.SIGKILL,
        env={**os.environ, **env},
        cwd=_ROOT,
    )
    try:
        async with asyncio.timeout(_START_S):
            await until_ready("127.0.0.1", port)
        yield Server(Target(name="baseline", port=port), {"baseline": psutil.Process(child.pid)})
    finally:
        await child.stop(signal.SIGTERM, grace_s=5)


def target_of(settings: Settings, url: str) -> Target:
    """The API at `url`, with a token for it."""
    token = mint_token(
        settings.jwt_secret,
        workspace=DEVELOPMENT_WORKSPACE,
        user=str(new_id()),
        role="owner",
        lifetime_s=_TOKEN_LIFETIME_S,
        audience=settings.jwt_audience,
    )
    return Target(
        name="throughline",
        port=urlsplit(url).port or 0,
        token=token,
        workspace_id=str(DEVELOPMENT_WORKSPACE),
    )


def store_processes() -> dict[str, psutil.Process]:
    """The embedded servers are children of this process."""
    names = {"postgres": "postgres", "valkey": "valkey"}
    children = psutil.Process().children()
    return {name: next(process for process in children if part in process.name()) for name, part in names.items()}
