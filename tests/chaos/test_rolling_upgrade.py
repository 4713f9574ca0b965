"""Every process is replaced, one by one, under load: by its like, or (`make upgrade`) by today's version of it."""

import asyncio
import os
import socket
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.support.audit import check_whole
from tests.support.chaos import Chaos
from tests.support.lanes import output_when_it_fails
from tests.support.planned_model import plan
from tests.support.processes import RunningProcess, api_process, open_listener, worker_process
from tests.support.system import Client, System, running_system
from tests.support.watcher import Watcher

_TODAY = Path(__file__).resolve().parents[2]
_BEFORE = Path(os.environ.get("UPGRADE_FROM") or _TODAY).resolve()


@pytest.mark.slow
async def test_clients_do_not_notice_that_every_process_is_replaced(chaos: Chaos) -> None:
    """APIs and workers are replaced one by one under load: no request fails, no run fails, no story has a gap."""
    async with running_system() as system, AsyncExitStack() as stack:
        listeners = [stack.enter_context(open_listener()) for _ in range(2)]
        rolling = _Rolling(chaos, system, stack, listeners)
        await rolling.start(chaos.pick(1, 2))
        load = asyncio.create_task(rolling.load(chaos.pick(8, 40)))
        try:
            with output_when_it_fails(*rolling.apis, *rolling.workers):
                for number in range(len(rolling.workers)):
                    await rolling.replace_worker(number)
                    await rolling.go_on(load, chaos.pick(1, 5))
                for number in range(len(rolling.apis)):
                    await rolling.replace_api(number)
                    await rolling.go_on(load, chaos.pick(1, 5))
                rolling.closing = True
                await load
        finally:
            load.cancel()
        chaos.figure("runs", len(rolling.watchers))
        chaos.figure("processes replaced", len(rolling.apis) + len(rolling.workers))
        chaos.figure("streams opened again", sum(watcher.connections - 1 for watcher in rolling.watchers))
        await check_whole(chaos, system, rolling.watchers)


class _Rolling:
    """Two APIs behind a balancer that is told which of them leaves, workers, and clients that go on."""

    def __init__(self, chaos: Chaos, system: System, stack: AsyncExitStack, listeners: list[socket.socket]) -> None:
        self.apis: list[RunningProcess] = []
        self.workers: list[RunningProcess] = []
        self.watchers: list[Watcher] = []
        self.closing = False
        self._chaos = chaos
        self._system = system
        self._stack = stack
        self._listeners = listeners
        self._clients: list[Client] = []
        self._serving: list[Client] = []

    async def start(self, workers: int) -> None:
        """All of the version before."""
        self.apis = list(await asyncio.gather(*(self._api(listener, _BEFORE) for listener in self._listeners)))
        self.workers = list(await asyncio.gather(*(self._worker(_BEFORE) for _ in range(workers))))
        here = await self._system.client(self.apis[0])
        self._clients = [here, await self._system.client(self.apis[1], here.workspace_id)]
        self._serving = list(self._clients)

    async def replace_worker(self, number: int) -> None:
        """The new one first, then the old one leaves."""
        leaving, self.workers[number] = self.workers[number], await self._worker(_TODAY)
        self._chaos.fault(f"worker {leaving.pid} leaves, {self.workers[number].pid} is there")
        assert await leaving.stop() == 0, leaving.output()

    async def replace_api(self, number: int) -> None:
        """It gets no more requests, answers those that it has, leaves; its address is taken over."""
        client, leaving = self._clients[number], self.apis[number]
        self._serving.remove(client)
        self._chaos.fault(f"API {leaving.pid} leaves")
        assert await leaving.stop() == 0, leaving.output()
        self.apis[number] = await self._api(self._listeners[number], _TODAY)
        self._chaos.fault(f"API {self.apis[number].pid} is there")
        self._serving.append(client)

    async def go_on(self, load: asyncio.Task[None], seconds: float) -> None:
        """Waits so long; fails at once with the load."""
        await asyncio.wait({load}, timeout=seconds)
        if load.done():
            load.result()

    async def load(self, lanes: int) -> None:
        """In each lane a client posts, watches the run to its end, and posts again."""
        async with asyncio.TaskGroup() as group:
            for _ in range(lanes):
                group.create_task(self._lane())

    async def _lane(self) -> None:
        conversation = await self._chaos.random.choice(self._serving).conversation()
        while not self.closing:
            model = plan(steps=2, tools=self._chaos.random.choice(("look", "charge,store")), words=30, pause_ms=20)
            client = self._chaos.random.choice(self._serving)
            run = await client.post(conversation, "go", provider="anthropic", model=model)
            watcher = Watcher(self._chaos.random.sample(self._clients, 2), run)
            self.watchers.append(watcher)
            await watcher.watch(60)

    async def _api(self, listener: socket.socket, source: Path) -> RunningProcess:
        process = api_process(self._system.environment(), listener, source=source)
        return await self._stack.enter_async_context(process)

    async def _worker(self, source: Path) -> RunningProcess:
        process = worker_process(self._system.environment(PROBE_SECONDS="0.2"), source=source)
        return await self._stack.enter_async_context(process)
