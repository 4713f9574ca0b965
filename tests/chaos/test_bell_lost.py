"""Nobody rings: the process dies between commit and bell, or Redis is down when a message is posted."""

import asyncio
import itertools
import time
from collections.abc import Awaitable
from typing import Any

import httpx

from tests.support.audit import check_whole
from tests.support.chaos import Chaos
from tests.support.failpoints import Failpoint
from tests.support.insist import insist, insist_on_conversation
from tests.support.kept_api import kept_apis
from tests.support.planned_model import plan
from tests.support.redis_faults import RestartableValkey
from tests.support.system import Client, System, running_system
from tests.support.watcher import Watcher

_MODEL = plan(words=5)


async def test_run_starts_although_its_process_died_before_the_bell(chaos: Chaos) -> None:
    """The API dies between commit and bell: the run starts within 3 s, and the POST's repetition gets just that run."""
    deaths = chaos.pick(2, 12)
    async with (
        running_system(forked=True) as system,
        kept_apis(
            system,
            chaos.fault,
            [lambda _: (Failpoint("bell.before", "exit", on=chaos.random.randint(1, 3), times=deaths),)],
        ) as (_, [client]),
    ):
        await system.worker(**chaos.steady)
        repeated = 0
        watchers: list[Watcher] = []
        while system.failpoints.fired("bell.before") < deaths:
            posts = await asyncio.gather(*(_post(client, number) for number in range(len(watchers), len(watchers) + 6)))
            repeated += sum(tries > 1 for _, tries in posts)
            begun = [Watcher([client], run) for run, _ in posts]
            await asyncio.gather(*(watcher.watch() for watcher in begun))
            watchers += begun
        chaos.figure("POSTs whose process died", repeated)
        assert repeated >= deaths
        chaos.figure("runs too many", len(await system.rows("select from runs")) - len(watchers), 0)
        await _check(chaos, system, watchers)


async def test_run_starts_although_redis_is_down(chaos: Chaos) -> None:
    """Redis is down at POST: 202 all the same, free workers find the run within 3 s, clients are told its end."""
    async with running_system(durable=True, forked=True) as system:
        client = await system.client(await system.api())
        await system.worker(**chaos.steady)
        valkey = RestartableValkey(system)
        watchers: list[Watcher] = []
        longest_s = 0.0
        for _ in range(chaos.pick(1, 6)):
            await valkey.kill()
            chaos.fault("Redis killed")
            began_at = time.monotonic()
            runs = [
                await client.start("go", provider="anthropic", model=_MODEL),
                *await asyncio.gather(
                    *(client.start("go", provider="anthropic", model=_MODEL) for _ in range(chaos.pick(5, 30)))
                ),
            ]
            longest_s = max(longest_s, time.monotonic() - began_at)
            begun = [Watcher([client], run) for run in runs]
            await asyncio.gather(*(watcher.watch() for watcher in begun))
            watchers += begun
            await valkey.start()
        chaos.figure("one POST, then many at once, at the longest", longest_s, chaos.pick(3, 6), "s")
        await _check(chaos, system, watchers)


async def _post(client: Client, number: int) -> tuple[dict[str, Any], int]:
    """The run of the POST with this key, repeated until it is answered, and how often it was sent."""
    path = f"/v1/conversations/{await insist_on_conversation(client)}/messages"
    body = {"content": "go", "provider": "anthropic", "model": _MODEL}
    tries = itertools.count()

    def post() -> Awaitable[httpx.Response]:
        next(tries)
        return client.http.post(path, json=body, headers={"Idempotency-Key": f"key-{number}"})

    return (await insist(post)).json()["run"], next(tries)


async def _check(chaos: Chaos, system: System, watchers: list[Watcher]) -> None:
    chaos.figure("runs", len(watchers))
    [row] = await system.rows("select extract(epoch from max(started_at - created_at))::float8 from runs")
    chaos.figure("run starts, at the latest", row[0], 3, "s")
    await check_whole(chaos, system, watchers)
