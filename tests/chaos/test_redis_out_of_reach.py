"""Redis is there, and cannot be reached: by the APIs, by the workers, by both; refused, reset, or in silence."""

import asyncio
import time
from typing import NamedTuple

from tests.support.chaos import Chaos, percentile
from tests.support.eventually import eventually
from tests.support.lanes import Lanes
from tests.support.planned_model import plan
from tests.support.system import Client, System, running_system
from tests.support.tcp_proxy import Mode, TcpProxy
from tests.support.watcher import Watcher

_MODES = (Mode.BLACK_HOLE, Mode.HALF_OPEN, Mode.LOSE_REPLIES, Mode.RESET, Mode.DROP)
_LONG = plan(words=100_000, pause_ms=50)


class Outage(NamedTuple):
    """Who cannot reach Redis, and how that looks."""

    who: str
    mode: Mode


class Ways(NamedTuple):
    """The ways to Redis."""

    of_apis: TcpProxy
    of_workers: TcpProxy

    def switch(self, outage: Outage, mode: Mode) -> None:
        """Puts those whom the outage is about into `mode`."""
        if "API" in outage.who:
            self.of_apis.switch(mode)
        if "workers" in outage.who:
            self.of_workers.switch(mode)


async def test_nothing_waits_for_a_redis_that_cannot_be_reached(chaos: Chaos) -> None:
    """Black hole, half-open, one way only, reset, refused: POST, start, cancel and end come in time, streams return."""
    every = [Outage(who, mode) for who in ("API", "workers", "API and workers") for mode in _MODES]
    some = [Outage("API and workers", Mode.BLACK_HOLE), Outage("API", Mode.LOSE_REPLIES), Outage("workers", Mode.DROP)]
    outages = chaos.random.sample(*chaos.pick((some, 1), (every, 9)))
    async with (
        running_system(forked=True) as system,
        TcpProxy(system.servers.redis_url) as of_apis,
        TcpProxy(system.servers.redis_url) as of_workers,
    ):
        ways = Ways(of_apis, of_workers)
        api = await system.api(REDIS_URL=of_apis.url)
        await asyncio.gather(
            *(system.worker(REDIS_URL=of_workers.url, **chaos.steady) for _ in range(chaos.pick(1, 2)))
        )
        client = await system.client(api)
        lanes = Lanes([client], chaos.pick(6, 30), lambda: plan(steps=1, tools="look,charge", words=20, pause_ms=15))
        live = [Watcher([client], await client.start("go", provider="anthropic", model=_LONG)) for _ in range(2)]
        watching = [asyncio.create_task(watcher.watch(300)) for watcher in live]
        back: list[float] = []
        cancelled: list[Watcher] = []
        async with lanes:
            for outage in outages:
                await eventually(lambda: all(watcher.seen for watcher in live), 20)
                cancelled += await _suffer(chaos, client, ways, outage, lanes)
                back += await _seconds_until_live(live)
        await asyncio.gather(*(_cancel(client, watcher) for watcher in live))
        await asyncio.gather(*watching)
        chaos.figure("streams live again, at the latest", max(back), 12, "s")
        chaos.figure("streams live again, p50", percentile(back, 0.5), unit="s")
        await _check_times(chaos, system, [*lanes.watchers, *cancelled])
        chaos.figure("POST answered, at the latest", max(lanes.post_seconds), 5, "s")
        await lanes.check(chaos, system)


async def _suffer(chaos: Chaos, client: Client, ways: Ways, outage: Outage, lanes: Lanes) -> list[Watcher]:
    """The outage, and a run that is cancelled in it."""
    await lanes.go_on(chaos.random.uniform(0.2, 1))
    chaos.fault(f"{outage.mode} between Redis and {outage.who}")
    ways.switch(outage, outage.mode)
    await lanes.go_on(chaos.random.uniform(0, 0.5))
    run = await client.start("go", provider="anthropic", model=_LONG)
    watcher = Watcher([client], run)
    watching = asyncio.create_task(watcher.watch(60))
    await client.state_is(run, "running", 5)
    await _cancel(client, watcher)
    await watching
    assert watcher.end is not None
    assert watcher.end["type"] == "cancelled"
    await lanes.go_on(chaos.random.uniform(0, chaos.pick(0.5, 3)))
    chaos.fault("within reach again")
    ways.switch(outage, Mode.PASS)
    return [watcher]


async def _cancel(client: Client, watcher: Watcher) -> None:
    answer = await client.http.post(f"/v1/runs/{watcher.run['id']}/cancel")
    assert answer.status_code == 200, answer.text


async def _seconds_until_live(watchers: list[Watcher]) -> list[float]:
    """Until each shows something new."""
    began_at = time.monotonic()
    for watcher in watchers:
        await eventually(lambda watcher=watcher: watcher.seen[-1].at > began_at, 20)  # type: ignore[misc]
    return [next(seen.at for seen in watcher.seen if seen.at > began_at) - began_at for watcher in watchers]


async def _check_times(chaos: Chaos, system: System, watchers: list[Watcher]) -> None:
    """By the database's clock, which is this machine's."""
    clock = time.time() - time.monotonic()
    rows = await system.rows(
        """
        select id, extract(epoch from started_at - created_at) as start_s, extract(epoch from finished_at) as finished,
            extract(epoch from finished_at - cancel_requested_at) as cancel_s
        from runs
        """
    )
    chaos.figure("runs start, at the latest", max(float(row["start_s"]) for row in rows), 3, "s")
    cancels = [float(row["cancel_s"]) for row in rows if row["cancel_s"] is not None]
    chaos.figure("cancels done, at the latest", max(cancels), 5, "s")
    finished = {str(row["id"]): float(row["finished"]) for row in rows}
    told = [watcher.seen[-1].at + clock - finished[watcher.run["id"]] for watcher in watchers]
    chaos.figure("ends told, p50", percentile(told, 0.5), unit="s")
    chaos.figure("ends told, at the latest", max(told), 15, "s")
