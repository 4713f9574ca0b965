"""Postgres is killed while people type into a document, and comes back at once or after a while."""

import asyncio
import signal

from tests.support.chaos import Chaos
from tests.support.document_writers import Writers, gather_writers
from tests.support.editors import running_editors
from tests.support.eventually import eventually
from tests.support.system import System, running_system

_TRY_AGAIN = {4503, 1012}


async def test_nothing_that_was_shown_is_lost_with_postgres(chaos: Chaos) -> None:
    """Meanwhile nobody is shown what is not committed; afterwards what was typed offline gets through by itself."""
    async with running_system(durable=True, forked=True) as system, running_editors() as editors:
        apis = await asyncio.gather(system.api(), system.api())
        here = await system.client(apis[0])
        there = await system.client(apis[1], here.workspace_id)
        writers = await gather_writers(editors, [here, there] * chaos.pick(1, 8))
        await writers.begin(chaos.pick(1200, 6000), pause_ms=chaos.pick(5, 10))
        for away_s in (0.0, chaos.pick(1.5, 30)):
            await writers.flows()
            await asyncio.sleep(chaos.random.uniform(0, chaos.pick(0.1, 2)))
            await _restart(chaos, system, writers, away_s)
        for api in apis:
            api.check_running()
        await writers.finish(system)


async def _restart(chaos: Chaos, system: System, writers: Writers, away_s: float) -> None:
    child = system.servers.embedded.postgres.child
    assert child is not None
    child.send(signal.SIGQUIT)
    await child.wait(10)
    chaos.fault(f"Postgres is killed, away for {away_s} s")
    seen = await writers.seen()
    if away_s:
        await eventually(lambda: _all_sent_away(writers), 15)
        assert await writers.seen() == seen, "somebody was shown what cannot have been committed"
        await asyncio.sleep(away_s)
    await system.servers.embedded.postgres.start()
    chaos.fault("Postgres is back")
    chaos.figure("characters shown and lost", await writers.lost(writers.people[0], seen), 0)
    chaos.figure("typing flows again", await writers.flows(), 15, "s")


async def _all_sent_away(writers: Writers) -> bool:
    """Whether all who type were told to come again: a room does not pretend that it keeps what it cannot."""
    for typist in writers.typists:
        codes = {code for code, _ in (await typist.report()).closes}
        assert codes <= _TRY_AGAIN, codes
        if not codes:
            return False
    return True
