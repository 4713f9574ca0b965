"""Steady load: so many clients, each with one run after another, while a test breaks things underneath."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from tests.support.audit import check_whole
from tests.support.chaos import Chaos, percentile
from tests.support.processes import RunningProcess
from tests.support.system import Client, System
from tests.support.watcher import Watcher

_LAST_CHARACTERS = 4000


@contextmanager
def output_when_it_fails(*processes: RunningProcess) -> Iterator[None]:
    """Prints the last words of each when the test fails."""
    try:
        yield
    except BaseException:
        for process in processes:
            print(f"--- {process.pid} {process.url}\n{process.output()[-_LAST_CHARACTERS:]}")
        raise


class Lanes:
    """`count` lanes; in each, a client posts, watches the run to its end, and posts again until the lanes are closed.

    A POST that is not answered with 202, and a run whose client does not see its end within `patience_s`, fail.
    """

    def __init__(
        self, clients: Sequence[Client], count: int, model: Callable[[], str], *, patience_s: float = 60
    ) -> None:
        self.watchers: list[Watcher] = []
        self.post_seconds: list[float] = []
        self._clients = clients
        self._count = count
        self._model = model
        self._patience_s = patience_s
        self._closing = False
        self._lanes: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._lanes = asyncio.create_task(self._run_all())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Waits until all runs have ended; when the test has failed already, leaves them."""
        self._closing = True
        assert self._lanes is not None
        if error is not None:
            self._lanes.cancel()
        await asyncio.wait({self._lanes})
        if error is None:
            self._lanes.result()

    async def go_on(self, seconds: float) -> None:
        """Waits so long; fails at once with a lane that fails."""
        assert self._lanes is not None
        await asyncio.wait({self._lanes}, timeout=seconds)
        if self._lanes.done():
            self._lanes.result()

    async def check(self, chaos: Chaos, system: System) -> None:
        """What every fault of Redis promises: no run is lost or fails, each client's story is whole and true."""
        chaos.figure("runs", len(self.watchers))
        chaos.figure("POST answered, p99", percentile(self.post_seconds, 0.99), unit="s")
        chaos.figure("POST answered, at the latest", max(self.post_seconds), unit="s")
        await check_whole(chaos, system, self.watchers)

    async def _run_all(self) -> None:
        async with asyncio.TaskGroup() as lanes:
            for number in range(self._count):
                lanes.create_task(self._run(self._clients[number % len(self._clients)]))

    async def _run(self, client: Client) -> None:
        conversation_id = await client.conversation()
        while not self._closing:
            began_at = time.monotonic()
            run = await client.post(conversation_id, "go", provider="anthropic", model=self._model())
            self.post_seconds.append(time.monotonic() - began_at)
            watcher = Watcher([client], run)
            self.watchers.append(watcher)
            await watcher.watch(self._patience_s)
