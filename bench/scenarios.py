"""What is measured, and the rows that come of it: performance.md says why these."""

from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from statistics import median
from typing import NamedTuple

import msgspec

from bench.folds import fold_costs
from bench.measure import Measured, measure
from bench.model import FakeModel, fake_model, model_name
from bench.processes import pin, usable_cpus
from bench.rows import Found, Row, Say, at_least, at_most
from bench.servers import Server, baseline, throughline
from bench.spec import Spec
from bench.turns import Rounds, by_turns

_SATURATED = 0.9


class Sizes(NamedTuple):
    """How much is measured. Medians are taken over `rounds`."""

    rounds: int
    posts: int
    concurrencies: tuple[int, ...]
    window_s: float
    crowd: int
    crowd_stagger_s: float


FULL = Sizes(rounds=3, posts=200, concurrencies=(1, 50, 200), window_s=8, crowd=500, crowd_stagger_s=20)
QUICK = Sizes(rounds=1, posts=100, concurrencies=(1, 200), window_s=4, crowd=500, crowd_stagger_s=20)


async def run_streams(sizes: Sizes, say: Say) -> Found:
    """Measures Throughline and the baseline by turns, so that both meet the same noise."""
    folds = _folds()
    async with AsyncExitStack() as stack:
        model = await stack.enter_async_context(fake_model())
        ours = await stack.enter_async_context(throughline(model.url))
        theirs = await stack.enter_async_context(baseline(model.url))
        bench = _Bench(sizes, say, model, ours, theirs)
        await bench.warm_up()
        rows = [*await bench.idle(), *await bench.tokens(), *await bench.cost(), *await bench.crowd(), *folds]
        return Found(rows, bench.faults)


class _Bench:
    def __init__(self, sizes: Sizes, say: Say, model: FakeModel, ours: Server, theirs: Server) -> None:
        self._sizes = sizes
        self._say = say
        self._model = model
        self._ours = ours
        self._theirs = theirs
        self.faults = 0

    async def warm_up(self) -> None:
        """Connections, prepared statements and the first import of everything are behind us."""
        for server in (self._ours, self._theirs):
            spec = Spec(target=server.target, model=model_name(5, 1_000), runs=10, one_by_one=True)
            await self._measure(server, spec)

    async def idle(self) -> list[Row]:
        """From a POST to its first event, one run at a time."""
        rounds = await self._rounds(
            "POST, one run at a time",
            lambda server: Spec(
                target=server.target,
                model=model_name(3, 1_000),
                runs=self._sizes.posts,
                one_by_one=True,
            ),
        )
        p50, base50 = rounds.medians(lambda m: m.load.first_event.p50)
        p99, base99 = rounds.medians(lambda m: m.load.first_event.p99)
        name = "POST to first SSE event, idle"
        return [at_most(f"{name}, p50", p50, "ms", 5, base50), at_most(f"{name}, p99", p99, "ms", 15, base99)]

    async def tokens(self) -> list[Row]:
        """From the model's send of a token to its arrival at the client, and what it costs."""
        rows = []
        for runs in self._sizes.concurrencies:
            rounds = await self._rounds(
                f"{runs} runs at 20 tokens/s", partial(self._load, runs=runs, rate=20, stagger_s=2 if runs > 1 else 0)
            )
            p50, base50 = rounds.medians(lambda m: m.load.latency.p50)
            p99, base99 = rounds.medians(lambda m: m.load.latency.p99)
            name = f"token, model to client, {runs} runs x 20/s"
            rows += [at_most(f"{name}, p50", p50, "ms", 1.5, base50), at_most(f"{name}, p99", p99, "ms", 5, base99)]
        return [*rows, _per_cpu_second(f"{runs} runs x 20/s", rounds)]

    async def cost(self) -> list[Row]:
        """CPU of everything that serves, stores included, beside that of a process which stores nothing."""
        runs = 100
        name = f"{runs} runs x 20/s"
        rounds = await self._rounds(name, partial(self._load, runs=runs, rate=20, stagger_s=2))
        ours = median(1_000 / m.tokens_per_cpu_s("worker", "api", "valkey", "postgres") for m in rounds.ours)
        theirs = median(1_000 / m.tokens_per_cpu_s("baseline") for m in rounds.theirs)
        name = f"CPU per 1,000 tokens of all processes and stores, {name}"
        return [at_most(name, ours, "s", theirs / 4, theirs)]

    async def crowd(self) -> list[Row]:
        """More runs at once than one process with the SDK manages, all server processes on one CPU."""
        runs = self._sizes.crowd
        server_cpu, *other_cpus = usable_cpus()
        if not other_cpus:
            self._say("left out: all servers on one CPU, since there is no second one for the load")
            return []
        pin(self._model.process, other_cpus)
        for server in (self._ours, self._theirs):
            for process in server.processes.values():
                pin(process, [server_cpu])
        rounds = await self._rounds(
            f"{runs} runs at 25 tokens/s, servers on one CPU",
            partial(self._load, runs=runs, rate=25, stagger_s=self._sizes.crowd_stagger_s),
            other_cpus,
        )
        rate, base_rate = rounds.medians(lambda m: m.load.tokens / m.load.seconds)
        first, base_first = rounds.medians(lambda m: m.load.first_token.p50 - 1_000 / 25)
        name = f"{runs} runs x 25/s, servers on one CPU"
        return [
            at_least(f"{name}, delivered", rate, "tokens/s", runs * 25 * 0.992, base_rate),
            at_most(f"{name}, first token over the model's, p50", first, "ms", 50, base_first),
            _per_cpu_second(name, rounds),
        ]

    def _load(self, server: Server, runs: int, rate: int, stagger_s: float) -> Spec:
        """The streams outlast the window, and end soon after it."""
        spec = Spec(target=server.target, model="", runs=runs, stagger_s=stagger_s, window_s=self._sizes.window_s)
        tokens = int((stagger_s + spec.window_s + 2) * rate)
        return msgspec.structs.replace(spec, model=model_name(tokens, rate))

    async def _rounds(
        self, name: str, spec_of: Callable[[Server], Spec], cpus: list[int] | None = None
    ) -> Rounds[Measured]:
        async def measure_one(number: int, server: Server) -> Measured:
            measured = await self._measure(server, spec_of(server), cpus)
            self._say(f"{name}, round {number}, {server.target.name}: {_summary(measured)}")
            return measured

        return await by_turns(self._sizes.rounds, self._ours, self._theirs, measure_one)

    async def _measure(self, server: Server, spec: Spec, cpus: list[int] | None = None) -> Measured:
        measured = await measure(server, self._model, spec, cpus)
        load = measured.load
        if sum(measured.cpu_s.get(name, 0.0) for name in ("load", "model")) > _SATURATED * load.seconds:
            self._say("the load generator and the model had no CPU to spare: the next line says too little")
        if server is self._ours:
            self.faults += load.gaps + len(load.failures)
        return measured


def _summary(measured: Measured) -> str:
    load = measured.load
    cpu = " ".join(f"{name} {seconds:.2f}" for name, seconds in measured.cpu_s.items())
    return (
        f"{load.tokens} tokens in {load.seconds:.1f} s, latency {load.latency.p50:.2f}/{load.latency.p99:.2f} ms, "
        f"first event {load.first_event.p50:.1f}/{load.first_event.p99:.1f} ms, "
        f"first token {load.first_token.p50:.1f} ms, {load.ended} ended; "
        f"CPU s: {cpu}"
        + (
            f"; {load.gaps} gaps, {len(load.failures)} failures, such as {load.failures[:1]}"
            if load.gaps or load.failures
            else ""
        )
    )


def _per_cpu_second(name: str, rounds: Rounds[Measured]) -> Row:
    ours = median(m.tokens_per_cpu_s("worker", "api", "valkey") for m in rounds.ours)
    theirs = median(m.tokens_per_cpu_s("baseline") for m in rounds.theirs)
    return at_least(f"tokens per CPU second of worker, API and Redis, {name}", ours, "tokens/s", 20_000, theirs)


def _folds() -> list[Row]:
    """Each protocol's own share of an event's way, in this process, before anything else runs."""
    return [at_most(f"fold of {name}, per event", fold, "µs", 10, parsing) for name, fold, parsing in fold_costs()]
