"""An API process gets `kill -9` while people type into a document at it and at another."""

import asyncio
import signal
import socket

from tests.support.chaos import Chaos
from tests.support.document_writers import Writers, everybody_is_shown, gather_writers
from tests.support.editors import running_editors
from tests.support.processes import RunningProcess, open_listener
from tests.support.system import Client, System, running_system


async def test_what_others_have_seen_is_kept_when_an_api_dies(chaos: Chaos) -> None:
    """One of two APIs is killed in mid-typing: what anybody was shown is in Postgres, and all of it in the end."""
    with open_listener() as one, open_listener() as two:
        async with running_system(forked=True) as system, running_editors() as editors:
            apis = list(await asyncio.gather(system.api_on(one), system.api_on(two)))
            writers = await gather_writers(editors, await _people(chaos, system, apis))
            rounds = chaos.pick(2, 12)
            await writers.begin(chaos.pick(600, 6000), pause_ms=chaos.pick(4, 10))
            for number in range(rounds):
                await writers.flows()
                await asyncio.sleep(chaos.random.uniform(0, chaos.pick(0.1, 2)))
                await _kill(chaos, system, apis, number % 2, (one, two), writers)
            await writers.finish(system, chaos.pick(60, 240))
            chaos.figure("everybody shown again", await everybody_is_shown(writers, 40), 15, "s")


async def _people(chaos: Chaos, system: System, apis: list[RunningProcess]) -> list[Client]:
    """At each API as many."""
    here = await system.client(apis[0])
    there = await system.client(apis[1], here.workspace_id)
    return [here, there] * chaos.pick(1, 8)


async def _kill(
    chaos: Chaos,
    system: System,
    apis: list[RunningProcess],
    which: int,
    listeners: tuple[socket.socket, socket.socket],
    writers: Writers,
) -> None:
    """Kills one, looks at what was shown and kept, and starts another in its place."""
    await apis[which].stop(signal.SIGKILL)
    seen = await writers.seen()
    chaos.fault(f"API {which} killed when {sum(map(len, seen))} characters were shown")
    chaos.figure("characters shown and lost", await writers.lost(writers.people[1 - which], seen), 0)
    apis[which] = await system.api_on(listeners[which])
    chaos.figure("typing flows again", await writers.flows(), 10, "s")
