"""Redis is killed and started again: with all that it had, without its last second, with nothing."""

import asyncio
import itertools
from typing import Literal

from tests.support.chaos import Chaos
from tests.support.lanes import Lanes
from tests.support.planned_model import plan
from tests.support.redis_faults import RestartableValkey
from tests.support.system import Client, System, running_system

Loss = Literal["nothing", "its last second", "everything"]
_BEGAN_AGAIN = "select count(*) from runs where attempt > claimed_attempt"


async def test_runs_outlive_restarts_of_redis(chaos: Chaos) -> None:
    """Redis is restarted with all that it had, without its last second, and empty, under runs and streams."""
    async with running_system(durable=True, forked=True) as system:
        clients = await _clients(chaos, system)
        valkey = RestartableValkey(system)
        await valkey.make_durable()
        async with _lanes(chaos, clients) as lanes:
            for _ in range(chaos.pick(1, 8)):
                await _restart(chaos, valkey, lanes, "nothing")
        await lanes.check(chaos, system)
        chaos.figure("runs that began a new attempt although nothing was lost", await _began_again(system), 0)
        async with _lanes(chaos, clients) as lanes:
            losses: itertools.cycle[Loss] = itertools.cycle(("its last second", "everything"))
            for loss in itertools.islice(losses, chaos.pick(2, 12)):
                await _restart(chaos, valkey, lanes, loss)
        await lanes.check(chaos, system)
        chaos.figure("runs that began a new attempt", await _began_again(system))
        assert await _began_again(system), "no fault met a run"


async def _clients(chaos: Chaos, system: System) -> list[Client]:
    """With workers, and an API for each client."""
    apis = await asyncio.gather(*(system.api() for _ in range(chaos.pick(1, 2))))
    await asyncio.gather(*(system.worker(**chaos.steady) for _ in range(chaos.pick(1, 2))))
    return [await system.client(api) for api in apis]


def _lanes(chaos: Chaos, clients: list[Client]) -> Lanes:
    def model() -> str:
        return plan(steps=2, tools=chaos.random.choice(("look", "charge,store")), words=30, pause_ms=15)

    return Lanes(clients, chaos.pick(8, 40), model)


async def _restart(chaos: Chaos, valkey: RestartableValkey, lanes: Lanes, loss: Loss) -> None:
    await lanes.go_on(chaos.random.uniform(0.2, chaos.pick(0.4, 2.0)))
    kept = valkey.size
    await lanes.go_on(1.0)
    written = valkey.size - kept
    await valkey.kill()
    if loss == "its last second":
        valkey.cut(kept)
    elif loss == "everything":
        valkey.forget()
    down_s = chaos.random.choice((0.0, 0.3, chaos.pick(0.6, 4.0)))
    chaos.fault(f"Redis killed, away for {down_s} s, lost {loss} ({written} bytes were written in the last second)")
    await lanes.go_on(down_s)
    await valkey.start()


async def _began_again(system: System) -> int:
    """How many runs raised their attempt by themselves, since the log had lost them."""
    [row] = await system.rows(_BEGAN_AGAIN)
    return int(row[0])
