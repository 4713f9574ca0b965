"""Everything that `throughline dev` runs: servers, then migrations, then API and workers."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from common.devserver.embedded import EmbeddedServers
from common.devserver.errors import DevServerError
from common.devserver.supervised import Supervised

_RELEASE_GRACE_S = 30


class System:
    """The Procfile's `commands` with the environment `env`; `write(name, line)` gets every line printed.

    At the end, each process has `grace_s` before it is killed.
    """

    def __init__(
        self,
        commands: dict[str, list[str]],
        env: dict[str, str],
        data: Path,
        workers: int,
        grace_s: float,
        write: Callable[[str, str], None],
    ) -> None:
        self._commands = commands
        self._env = env
        self._data = data
        self._workers = workers
        self._grace_s = grace_s
        self._write = write
        self._processes: list[Supervised] = []

    async def serve(self, greet: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Runs until it is cancelled, then stops in order. `greet` runs beside the processes, until all are up.

        Raises DevServerError when something cannot run.
        """
        async with self._servers() as servers:
            await self._release()
            self._processes = self._all_processes()
            greeting = asyncio.create_task(greet())
            beside = [greeting]
            running = [
                asyncio.create_task(process.keep_running(is_starting=lambda: not greeting.done()))
                for process in self._processes
            ]
            if servers is not None:
                beside.append(asyncio.create_task(servers.keep_running(self._report)))
            try:
                done, _ = await asyncio.wait([*running, *beside], return_when=asyncio.FIRST_EXCEPTION)
                for task in done:
                    task.result()
            finally:
                for task in beside:
                    task.cancel()
                await asyncio.gather(*(process.stop(self._grace_s) for process in self._processes))
                await asyncio.gather(*running, *beside, return_exceptions=True)

    def kill(self) -> None:
        """Ends API and workers at once; the servers still stop in order."""
        for process in self._processes:
            process.kill()

    @asynccontextmanager
    async def _servers(self) -> AsyncIterator[EmbeddedServers | None]:
        """Embedded servers, named in the environment; None where it names servers already."""
        if self._env.get("DATABASE_URL") and self._env.get("REDIS_URL"):
            yield None
            return
        servers = EmbeddedServers(self._data)
        try:
            await servers.start()
            self._env["DATABASE_URL"] = self._env["MIGRATION_DATABASE_URL"] = servers.database_url
            self._env["REDIS_URL"] = servers.redis_url
            yield servers
        finally:
            await servers.stop()

    async def _release(self) -> None:
        """What has to be done once before a new version starts: the Procfile's `release` line."""
        if "release" not in self._commands:
            return
        release = Supervised("release", self._commands["release"], self._env, self._write)
        self._processes = [release]
        try:
            status = await release.run_once()
        finally:
            await release.stop(_RELEASE_GRACE_S)
        if status != 0:
            raise DevServerError(f"`{' '.join(self._commands['release'])}` ended with status {status}")

    def _all_processes(self) -> list[Supervised]:
        """Each command once, the worker's as often as asked for."""
        names = []
        for name in self._commands:
            if name == "worker":
                names += [(name, f"worker.{number}") for number in range(1, self._workers + 1)]
            elif name != "release":
                names.append((name, name))
        return [Supervised(label, self._commands[name], self._env, self._write) for name, label in names]

    def _report(self, line: str) -> None:
        self._write("throughline", line)
