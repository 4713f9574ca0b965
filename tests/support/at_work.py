"""A system at work while something happens to its Postgres; afterwards everything that was promised is looked at."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import cycle
from typing import TypeVar

from tests.support.audit import audit, audit_watchers, doubled_effects
from tests.support.chaos import QUICK, Chaos
from tests.support.eventually import eventually
from tests.support.insist import insist_on_conversation
from tests.support.planned_model import plan
from tests.support.poster import Poster
from tests.support.system import Client, System
from tests.support.watcher import Watcher

T = TypeVar("T")
_HEALED_S = 5.0
"""How soon after its return who comes then is served."""
_ANSWERED_S = 10.0
"""How long at most anybody waits for an answer, whatever has become of the connections."""


class AtWork:
    """What a test does meanwhile."""

    def __init__(self, chaos: Chaos, system: System, poster: Poster) -> None:
        self.system = system
        self.poster = poster
        self._chaos = chaos
        self._healed: list[float] = []

    async def heals(self) -> None:
        """Returns once somebody who comes now is served; notes how long that took."""
        began = time.monotonic()
        await insist_on_conversation(self.poster.client)
        seconds = time.monotonic() - began
        self._chaos.fault(f"serves who comes now, after {seconds:.2f} s")
        self._healed.append(seconds)

    async def readiness(self) -> tuple[int, str]:
        """What the API says of itself: the status code and the word for it."""
        answer = await self.poster.client.http.get("/health/ready")
        return answer.status_code, answer.json()["status"]

    async def report(self) -> None:
        """Figures and promises of the messages and of all runs."""
        chaos, poster, system = self._chaos, self.poster, self.system
        statuses = poster.statuses()
        chaos.figure("POSTs", len(poster.posts))
        chaos.figure("answered 202", statuses[202])
        chaos.figure("answered 503", statuses[503])
        chaos.figure("answered otherwise", len(poster.wrong), 0)
        chaos.figure("posts refused at least once", sum(post.answers[0][0] == 503 for post in poster.posts))
        lost = await poster.lost(system)
        chaos.figure("acknowledged and lost, or stored twice", len(lost), 0)
        chaos.figure("refused, but stored: the COMMIT's reply was lost", await poster.stored_unanswered(system))
        chaos.figure("longest wait for an answer", poster.slowest(), _ANSWERED_S, "s")
        chaos.figure("served again", max(self._healed), _HEALED_S, "s")
        runs = await system.rows("select state, attempt, crashes_total from runs")
        chaos.figure("runs", len(runs))
        chaos.figure("runs not completed", sum(run["state"] != "completed" for run in runs), 0)
        chaos.figure("runs taken over", sum(run["crashes_total"] > 0 for run in runs))
        chaos.figure("at-most-once effects doubled", doubled_effects(system, "charge"), 0)


@asynccontextmanager
async def at_work(chaos: Chaos, system: System, posts: int, **settings: str) -> AsyncIterator[AtWork]:
    """An API and workers with `settings`, watched runs, and up to `posts` messages that come one after the other."""
    api = await system.api(**settings)
    client = await system.client(api)
    environment = {"PROBE_SECONDS": "0.2", **chaos.pick({**QUICK, "LEASE_S": "4"}, {}), **settings}
    workers = await asyncio.gather(*(system.worker(**environment) for _ in range(chaos.pick(1, 2))))
    conversations = await _in_turns(posts, client.conversation)
    watchers = await _start(client, chaos.pick(6, 100), chaos.pick(40, 80), chaos.pick(25, 150))
    watching = asyncio.gather(*(watcher.watch(chaos.pick(60, 240)) for watcher in watchers))
    poster = Poster(client, conversations, chaos.pick(3, 6), pause_s=chaos.pick(0.1, 0.2))
    work = AtWork(chaos, system, poster)
    async with poster.posting():
        await eventually(poster.acknowledged, 20)
        yield work
    await watching
    await system.all_ended(chaos.pick(30, 120))
    await work.report()
    problems = [*await audit(system), *await audit_watchers(system, watchers)]
    for process in (api, *workers):
        process.check_running()
        problems += [line for line in process.output().splitlines() if "Traceback" in line]
    assert not problems, problems[:10]


async def _start(client: Client, count: int, words: int, pause_ms: float) -> list[Watcher]:
    """Runs that are still at work when the faults come."""
    tools = cycle(("look", "store,charge", "charge"))

    async def start() -> Watcher:
        model = plan(steps=3, tools=next(tools), words=words, pause_ms=pause_ms)
        return Watcher([client], await client.start("go", provider="anthropic", model=model))

    return await _in_turns(count, start)


async def _in_turns(count: int, begin: Callable[[], Awaitable[T]]) -> list[T]:
    """What `begin` gives, so many times, a few at once."""
    few = asyncio.Semaphore(8)

    async def one() -> T:
        async with few:
            return await begin()

    return await asyncio.gather(*(one() for _ in range(count)))
