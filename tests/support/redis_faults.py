"""What may happen to a Valkey of a test's own: killed, started again with less than it had, its keys lost."""

import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from redis.asyncio import Redis

from common.devserver.valkey import Valkey
from tests.support.system import System


class RestartableValkey:
    """The system's Valkey, started with `durable`; it remembers all that it was told unless told to forget."""

    def __init__(self, system: System) -> None:
        self._valkey: Valkey = system.servers.embedded.valkey
        self._url = system.servers.redis_url
        self._log = Path()

    async def make_durable(self) -> None:
        """Each write is on disk before it is answered. With `everysec` a kill may lose what waits for an fsync."""
        async with self.client() as client:
            await client.config_set("appendfsync", "always")
            config = await client.config_get("*dir*")
        self._log = Path(config["dir"]) / config["appenddirname"]

    @property
    def size(self) -> int:
        """The bytes of its append-only file so far; it grows by whole commands."""
        return self._newest().stat().st_size

    async def kill(self) -> None:
        """`kill -9`."""
        assert self._valkey.child is not None
        self._valkey.child.send(signal.SIGKILL)
        await self._valkey.child.wait(5)

    def cut(self, size: int) -> None:
        """What it wrote beyond `size` bytes never reached the disk."""
        with self._newest().open("r+b") as file:
            file.truncate(size)

    def forget(self) -> None:
        """Nothing reached the disk."""
        shutil.rmtree(self._log)

    async def start(self) -> None:
        """Back, with what is on its disk."""
        await self._valkey.start()
        await self.make_durable()

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Redis]:
        """A client for a test's own commands."""
        async with Redis.from_url(self._url, decode_responses=True) as client:
            yield client

    def _newest(self) -> Path:
        return max(self._log.glob("*.incr.aof"), key=lambda path: int(path.name.split(".")[2]))
