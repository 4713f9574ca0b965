"""Redis is killed while people type into a document at two APIs, and comes back with nothing."""

import asyncio

from tests.support.chaos import Chaos
from tests.support.document_writers import everybody_is_shown, gather_writers
from tests.support.documents import make_document
from tests.support.editors import Editors, agree, running_editors
from tests.support.redis_faults import RestartableValkey
from tests.support.system import Client, running_system


async def test_typing_goes_on_without_redis(chaos: Chaos) -> None:
    """Without Redis the APIs look into Postgres: typing reaches the other one within seconds, and nobody is closed."""
    async with running_system(durable=True, forked=True) as system, running_editors() as editors:
        valkey = RestartableValkey(system)
        await valkey.make_durable()
        apis = await asyncio.gather(system.api(), system.api())
        here = await system.client(apis[0])
        people = [here, await system.client(apis[1], here.workspace_id)]
        writers = await gather_writers(editors, people * chaos.pick(1, 8))
        await writers.begin(chaos.pick(1500, 8000), pause_ms=chaos.pick(4, 10))
        for _ in range(chaos.pick(1, 5)):
            await writers.flows()
            await asyncio.sleep(chaos.random.uniform(0, chaos.pick(0.1, 2)))
            await valkey.kill()
            valkey.forget()
            chaos.fault("Redis is killed, with all that it had")
            chaos.figure("typing reaches the other API without Redis", await writers.flows(), 5, "s")
            await _open_without_redis(editors, people)
            await asyncio.sleep(chaos.random.uniform(0, chaos.pick(0.3, 5)))
            await valkey.start()
            chaos.fault("Redis is back")
            chaos.figure("typing reaches the other API again", await writers.flows(), 5, "s")
        closes = [close for each in (*writers.typists, *writers.watchers) for close in (await each.report()).closes]
        chaos.figure("connections closed", len(closes), 0)
        await writers.finish(system)
        chaos.figure("everybody shown again", await everybody_is_shown(writers, 40), 15, "s")


async def _open_without_redis(editors: Editors, people: list[Client]) -> None:
    """Documents that nobody has open yet can be opened, at both APIs, and are live."""
    document = await make_document(people[0], "new")
    here, there = [await editors.join(each, document) for each in people]
    await here.insert(0, "a ")
    await there.says("a new")
    await there.insert(5, " one")
    assert await agree(here, there) == "a new one"
    for editor in (here, there):
        await editor.disconnect()
