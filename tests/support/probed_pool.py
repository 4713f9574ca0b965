"""The real pool, at whose statements a test may step in: lose a reply, hold all up, pull the plug."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, cast

import asyncpg

from common.store.database import Pool

Probe = Callable[[], Awaitable[None]]


class _Planted(NamedTuple):
    fragment: str
    probe: Probe


class ProbedPool:
    """What is asked of it the real pool does; `as_pool` is the same object for those who know only pools."""

    def __init__(self, pool: Pool) -> None:
        self.real = pool
        self.refused = 0
        self._planted: list[_Planted] = []
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._cut = False

    @property
    def as_pool(self) -> Pool:
        return cast(Pool, self)

    def is_closing(self) -> bool:
        return bool(self.real.is_closing())

    def after(self, fragment: str, probe: Probe) -> None:
        """Awaits `probe` once, between the next statement with `fragment` in it and whoever waits for its answer."""
        self._planted.append(_Planted(fragment, probe))

    def lose_commit_reply(self) -> None:
        """The next transaction is committed, but who committed it learns only that the connection is gone."""

        async def lose() -> None:
            raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")

        self.after("commit", lose)

    def pause(self) -> None:
        """No statement reaches the server until `resume`, as when it is stopped."""
        self._flowing.clear()

    def resume(self) -> None:
        """What was sent meanwhile is executed now."""
        self._flowing.set()

    def cut(self) -> None:
        """Every connection is refused until `mend`, and counted in `refused`."""
        self._cut = True

    def mend(self) -> None:
        """Postgres is back."""
        self._cut = False

    async def acquire(self) -> "_ProbedConnection":
        """A connection of the real pool, watched."""
        self._connect()
        return _ProbedConnection(await self.real.acquire(), self)

    async def release(self, connection: "_ProbedConnection") -> None:
        """Gives it back."""
        await self.real.release(connection.real)

    async def fetch(self, statement: str, *arguments: Any) -> Any:
        """A query outside of a transaction."""
        self._connect()
        return await self.execute(self.real.fetch, statement, *arguments)

    async def execute(
        self, method: Callable[..., Awaitable[Any]], statement: str, *arguments: Any, **options: Any
    ) -> Any:
        """Has the real `method` execute the statement; then the probes that were planted for it have their turn."""
        await self._flowing.wait()
        answer = await method(statement, *arguments, **options)
        for planted in [planted for planted in self._planted if planted.fragment in statement]:
            self._planted.remove(planted)
            await planted.probe()
        return answer

    def _connect(self) -> None:
        if self._cut:
            self.refused += 1
            raise ConnectionRefusedError("nobody listens")


class _ProbedConnection:
    def __init__(self, connection: Any, pool: ProbedPool) -> None:
        self.real = connection
        self._pool = pool

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self.real, name)

        async def execute(statement: str, *arguments: Any, **options: Any) -> Any:
            return await self._pool.execute(method, statement, *arguments, **options)

        return execute
