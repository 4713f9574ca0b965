"""A master, its replica, and sentinels that put the replica in its place: real processes, with a password."""

import asyncio
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from urllib.parse import quote

from redis.asyncio import Redis
from redis.exceptions import RedisError

from common.devserver.binaries import find_valkey
from common.devserver.child import Child, spawn
from common.devserver.readiness import free_port, last_lines
from tests.support.eventually import eventually

MASTER = "throughline"
PASSWORD = "a password of the test's Valkey"
_SENTINELS = 3
_DOWN_AFTER_MS = 500
_PATIENCE_S = 30


class ReplicatedValkey:
    """Two servers of which one is the master. `url` names the sentinels."""

    def __init__(self, folder: Path, servers: dict[int, Child], sentinels: Sequence[int]) -> None:
        self._folder = folder
        self._servers = servers
        self._sentinels = sentinels

    @property
    def url(self) -> str:
        """For REDIS_URL."""
        hosts = ",".join(f"127.0.0.1:{port}" for port in self._sentinels)
        return f"redis+sentinel://:{quote(PASSWORD)}@{hosts}/{MASTER}"

    async def master(self) -> int | None:
        """The port of the server that is the master as the sentinels have it; None while they are not of one mind."""
        said = set()
        for port in self._sentinels:
            async with Redis(port=port, decode_responses=True) as sentinel:
                said.add(str((await sentinel.sentinel_master(MASTER))["port"]))  # type: ignore[no-untyped-call]
        return int(said.pop()) if len(said) == 1 else None

    async def kill_master(self) -> int:
        """`kill -9`; the port of the one that was killed."""
        port = await self.master()
        assert port is not None
        child = self._servers[port]
        child.send(signal.SIGKILL)
        await child.wait(5)
        return port

    async def restart_killed(self) -> None:
        """Starts a killed server again, empty; returns once the sentinels have made it the other one's replica."""
        for port, child in self._servers.items():
            if child.returncode is not None:
                self._servers[port] = await _start(self._folder, port, ())
        await eventually(self.is_replicated, _PATIENCE_S, 0.1)

    async def is_replicated(self) -> bool:
        """Whether the replica has all that the master has, and all sentinels know of it and of each other."""
        port = await self.master()
        if port is None:
            return False
        async with Redis(port=port, password=PASSWORD) as master:
            if (await master.info("replication")).get("slave0", {}).get("state") != "online":
                return False
        for sentinel_port in self._sentinels:
            async with Redis(port=sentinel_port) as sentinel:
                state = await sentinel.sentinel_master(MASTER)  # type: ignore[no-untyped-call]
                if state["num-slaves"] < 1 or state["num-other-sentinels"] < len(self._sentinels) - 1:
                    return False
        return True

    async def stop(self) -> None:
        """Ends both servers."""
        for child in self._servers.values():
            await child.stop(signal.SIGKILL, 5)


@asynccontextmanager
async def replicated_valkey(folder: Path) -> AsyncIterator[ReplicatedValkey]:
    """Returns once the replica would be taken for the master's successor."""
    async with AsyncExitStack() as stack:
        master, replica = free_port(), free_port()
        sentinels = [free_port() for _ in range(_SENTINELS)]
        servers = {master: await _start(folder, master, ())}
        valkey = ReplicatedValkey(folder, servers, sentinels)
        stack.push_async_callback(valkey.stop)
        servers[replica] = await _start(folder, replica, ("--replicaof", f"127.0.0.1 {master}"))
        for port in sentinels:
            child = await _start_sentinel(folder, port, master)
            stack.push_async_callback(child.stop, signal.SIGKILL, 5)
        await eventually(valkey.is_replicated, _PATIENCE_S, 0.1)
        yield valkey


async def _start(folder: Path, port: int, more: Sequence[str]) -> Child:
    options = {
        "--port": str(port),
        "--bind": "127.0.0.1",
        "--dir": str(folder),
        "--dbfilename": f"{port}.rdb",
        "--save": "",
        "--requirepass": PASSWORD,
        "--masterauth": PASSWORD,
        "--repl-diskless-sync-delay": "0",
        "--maxmemory-policy": "noeviction",
    }
    words = [word for option in options.items() for word in option]
    return await _answering(folder, port, [*words, *more], PASSWORD)


async def _start_sentinel(folder: Path, port: int, master: int) -> Child:
    config = folder / f"sentinel-{port}.conf"  # Which it writes its own findings into.
    config.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {folder}\n"
        f"sentinel monitor {MASTER} 127.0.0.1 {master} {_SENTINELS // 2 + 1}\n"
        f'sentinel auth-pass {MASTER} "{PASSWORD}"\n'
        f"sentinel down-after-milliseconds {MASTER} {_DOWN_AFTER_MS}\n"
        f"sentinel failover-timeout {MASTER} 3000\n"
    )
    return await _answering(folder, port, [str(config), "--sentinel"], None)


async def _answering(folder: Path, port: int, options: Sequence[str], password: str | None) -> Child:
    log = folder / f"{port}.log"
    with log.open("ab") as output:
        child = spawn([find_valkey(), *options], on_parent_death=signal.SIGKILL, stdout=output)

    async def answers() -> bool:
        assert child.returncode is None, last_lines(log)
        async with Redis(port=port, password=password) as client:
            try:
                return bool(await client.ping())
            except (RedisError, OSError):
                await asyncio.sleep(0.01)
                return False

    await eventually(answers, _PATIENCE_S)
    return child
