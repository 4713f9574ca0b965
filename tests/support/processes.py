"""The real commands, `python -m api` and `python -m worker`, as processes of their own."""

import os
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import asyncpg
import httpx
import msgspec

from common.config import CompatibleProvider, Settings
from common.devserver.child import Process, spawn
from tests.support.eventually import eventually
from tests.support.failpoints import VARIABLE
from tests.support.forker import AVAILABLE, the_forker

_ROOT = Path(__file__).resolve().parents[2]
_READY_S = 60
_GRACE_S = 40


class EndedProcess(RuntimeError):
    """It has ended before it was to; the message is its status and what it printed."""


class RunningProcess:
    """A process of the system. `url` is the API's address, empty for a worker."""

    def __init__(self, child: Process, log: Path, url: str) -> None:
        self.child = child
        self.url = url
        self._log = log

    @property
    def pid(self) -> int:
        return self.child.pid

    def output(self) -> str:
        """All that it has printed so far."""
        return self._log.read_text(errors="replace")

    async def stop(self, number: signal.Signals = signal.SIGTERM, grace_s: float = _GRACE_S) -> int | None:
        """Signals it and returns its exit status once it has ended; SIGKILL after `grace_s`."""
        await self.child.stop(number, grace_s)
        return self.child.returncode

    def check_running(self) -> None:
        """Fails, with what it printed, when it has ended."""
        if self.child.returncode is not None:
            raise EndedProcess(f"it ended with status {self.child.returncode}:\n{self.output()}")


def environment(settings: Settings, **more: str) -> dict[str, str]:
    """The variables that give a process these settings, whatever this one inherited; `more` adds to them."""
    values = {name.upper(): _text(getattr(settings, name)) for name in settings.__struct_fields__}
    return {**os.environ, **values, **more}


def open_listener() -> socket.socket:
    """A listening socket on a port that the system chose, for an address that outlives the API behind it."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(1024)
    return listener


@asynccontextmanager
async def api_process(
    env: Mapping[str, str], listener: socket.socket | None = None, *, forked: bool = False, source: Path = _ROOT
) -> AsyncIterator[RunningProcess]:
    """A ready `python -m api` with `env`, stopped with SIGTERM afterwards. `listener` stays the caller's.

    `source` is where its code lies: another version's, for one that is not forked.
    """
    listening = listener or open_listener()
    host, port = listening.getsockname()
    fd = listening.fileno()
    async with _process(
        "api", {**env, "THROUGHLINE_FD": str(fd)}, f"http://{host}:{port}", (fd,), forked, source
    ) as api:
        if listener is None:
            # Ours would keep taking connections once the API is gone.
            listening.close()
        async with httpx.AsyncClient() as client:

            async def is_ready() -> bool:
                api.check_running()
                try:
                    return (await client.get(f"{api.url}/health/ready", timeout=5)).status_code == 200
                except httpx.TransportError:
                    return False

            await eventually(is_ready, _READY_S)
        yield api


@asynccontextmanager
async def worker_process(
    env: Mapping[str, str], *, forked: bool = False, source: Path = _ROOT
) -> AsyncIterator[RunningProcess]:
    """A `python -m worker` with `env` that has told the catalogue what it offers; SIGTERM afterwards."""
    async with _process("worker", env, "", (), forked, source) as worker:
        connection = await asyncpg.connect(env["MIGRATION_DATABASE_URL"])
        try:

            async def has_offered() -> bool:
                worker.check_running()
                query = "select exists (select from catalogue where worker like $1)"
                return bool(await connection.fetchval(query, f"{socket.gethostname()}:{worker.pid}:%"))

            await eventually(has_offered, _READY_S)
        finally:
            await connection.close()
        yield worker


@asynccontextmanager
async def _process(
    module: Literal["api", "worker"],
    env: Mapping[str, str],
    url: str,
    pass_fds: tuple[int, ...],
    forked: bool,
    source: Path,
) -> AsyncIterator[RunningProcess]:
    with tempfile.NamedTemporaryFile(prefix=f"throughline-{module}-", suffix=".log") as log:
        child: Process
        if forked and AVAILABLE:
            child = await the_forker().fork(module, env, log.file, pass_fds)
        else:
            command = ["tests.support.armed_process", module] if VARIABLE in env else [module]
            child = spawn(
                [sys.executable, "-m", *command],
                on_parent_death=signal.SIGKILL,
                env=env,
                cwd=source,
                stdout=log.file,
                pass_fds=pass_fds,
            )
        try:
            yield RunningProcess(child, Path(log.name), url)
        finally:
            await child.stop(signal.SIGTERM, _GRACE_S)


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        if any(isinstance(item, CompatibleProvider) for item in value):
            return msgspec.json.encode(value).decode()
        return ",".join(value)
    return str(value)
