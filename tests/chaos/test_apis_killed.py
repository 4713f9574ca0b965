"""One of two APIs gets `kill -9` again and again while clients watch their runs."""

import asyncio
import signal
import socket

from tests.support.audit import check_whole
from tests.support.chaos import Chaos
from tests.support.fleet import Fleet
from tests.support.planned_model import plan
from tests.support.processes import RunningProcess, open_listener
from tests.support.system import Client, System, running_system
from tests.support.watcher import Watcher


async def test_clients_resume_when_apis_die(chaos: Chaos) -> None:
    """One of two APIs is killed every 3 s under 200 streams: clients resume by their cursor and read the same story."""
    with open_listener() as one, open_listener() as two:
        async with running_system(forked=True) as system:
            await _watch_through(chaos, system, _Apis(system, [one, two]))


async def _watch_through(chaos: Chaos, system: System, apis: "_Apis") -> None:
    clients, _ = await asyncio.gather(apis.start(), Fleet(system).grow(chaos.pick(1, 2)))
    watchers = await _start(chaos, clients, chaos.pick(20, 200))
    watching = asyncio.gather(*(watcher.watch(chaos.pick(60, 300)) for watcher in watchers))
    await asyncio.wait({watching}, timeout=1)
    kills = 0
    while not watching.done():
        kills += 1
        killed = await apis.kill(chaos.random.randrange(2))
        chaos.fault(f"kill -9 of API {killed}")
        await asyncio.wait({watching}, timeout=chaos.pick(1.0, 3.0))
    await watching
    chaos.figure("streams", len(watchers))
    chaos.figure("APIs killed", kills)
    chaos.figure("connections", sum(watcher.connections for watcher in watchers))
    chaos.figure("streams that no API dropped", sum(watcher.connections == 1 for watcher in watchers))
    await check_whole(chaos, system, watchers)
    assert kills >= chaos.pick(1, 10)
    assert sum(watcher.connections for watcher in watchers) > len(watchers), "nobody had to resume"


class _Apis:
    """Two APIs on addresses that outlive them: whoever connects while one starts again is kept waiting."""

    def __init__(self, system: System, listeners: list[socket.socket]) -> None:
        self._system = system
        self._listeners = listeners
        self._apis: list[RunningProcess] = []

    async def start(self) -> list[Client]:
        """One person at both."""
        self._apis = list(await asyncio.gather(*(self._system.api_on(listener) for listener in self._listeners)))
        here = await self._system.client(self._apis[0])
        return [here, await self._system.client(self._apis[1], here.workspace_id)]

    async def kill(self, which: int) -> int:
        """Kills one and starts another in its place; the pid of the killed one."""
        killed = self._apis[which]
        await killed.stop(signal.SIGKILL)
        self._apis[which] = await self._system.api_on(self._listeners[which])
        return killed.pid


async def _start(chaos: Chaos, clients: list[Client], count: int) -> list[Watcher]:
    """Half of the clients know both addresses, half only one."""
    model = plan(steps=2, tools="look", words=chaos.pick(30, 60), pause_ms=chaos.pick(50, 250))
    watchers = []
    for number in range(count):
        run = await clients[number % 2].start("go", provider="anthropic", model=model)
        known = clients if chaos.random.random() < 0.5 else [clients[number % 2]]
        watchers.append(Watcher(known, run))
    return watchers
