"""What is measured of operations, and the rows that come of it: performance.md says why these."""

from contextlib import AsyncExitStack
from functools import partial
from typing import NamedTuple

import msgspec

from bench.measure import measure, run_load
from bench.model import FakeModel, fake_model, model_name
from bench.operations.cancelling import cancel_runs
from bench.operations.holding import hold_streams
from bench.operations.idling import measure_idle
from bench.operations.spec import Holding, Resuming, ResumingResult, Turnover, TurnoverResult
from bench.operations.starting import start_s
from bench.rows import Found, Row, Say, at_least, at_most, beside
from bench.servers import Server, baseline, throughline
from bench.spec import Spec
from bench.turns import by_turns
from tests.support.fake_model_server import FakeModelServer
from tests.support.processes import api_process, worker_process

_LOAD = "bench.operations.load"
_SHORT = model_name(20, 0)
_LONG = model_name(2_000, 500)
_SILENT = model_name(1, 0.0001)
_CONVERSATIONS_PER_CLIENT = 40
_STREAMS_PER_RUN = 10
_IN_FLIGHT = 1_000
_IN_FLIGHT_RATE = 4


class Sizes(NamedTuple):
    """How much is measured. Medians are taken over `rounds`."""

    rounds: int
    window_s: float
    at_once: int
    times: int
    idle_s: float
    streams: int


FULL = Sizes(rounds=3, window_s=8, at_once=50, times=50, idle_s=30, streams=10_000)
QUICK = Sizes(rounds=1, window_s=4, at_once=50, times=20, idle_s=10, streams=10_000)


async def run_operations(sizes: Sizes, say: Say) -> Found:
    """Measures an API with two workers, and the baseline where it can do the like."""
    async with AsyncExitStack() as stack:
        model = await stack.enter_async_context(fake_model())
        near = await stack.enter_async_context(FakeModelServer())
        ours = await stack.enter_async_context(
            throughline(
                model.url,
                workers=2,
                openai_base_url=f"{near.url}/v1",
                openai_api_key="none is needed",
                provider_first_token_s=3_600,
                run_deadline_s=3_600,
            )
        )
        theirs = await stack.enter_async_context(baseline(model.url))
        bench = _Bench(sizes, say, model, near, ours, theirs)
        rows = [
            *await bench.idle(),
            *await bench.starts(),
            *await bench.turnover(),
            *await bench.resumes(),
            *await bench.cancels(),
            *await bench.in_flight(),
            *await bench.silent_streams(),
        ]
        return Found(rows, bench.faults)


class _Bench:
    def __init__(
        self, sizes: Sizes, say: Say, model: FakeModel, near: FakeModelServer, ours: Server, theirs: Server
    ) -> None:
        self._sizes = sizes
        self._say = say
        self._model = model
        self._near = near
        self._ours = ours
        self._theirs = theirs
        self.faults = 0

    async def idle(self) -> list[Row]:
        """Nothing to do, for one API and two workers."""
        found = await measure_idle(self._ours, self._sizes.idle_s)
        shares = ", ".join(f"{name} {percent:.2f} %" for name, percent in found.cpu_percent.items())
        self._say(f"idle: {found.redis_operations:.2f} operations a second in Redis; CPU: {shares}")
        worker = max(found.cpu_percent["worker"], found.cpu_percent["worker 2"])
        return [
            at_most("idle: operations in Redis per second and worker", found.redis_operations / 2, "/s", 2),
            at_most("idle: CPU of a worker", worker, "% of one", 1),
            at_most("idle: CPU of the API", found.cpu_percent["api"], "% of one", 1),
        ]

    async def starts(self) -> list[Row]:
        """From the command to the first work, beside servers that run."""
        times, env = self._sizes.rounds, self._ours.environment
        base = await start_s(partial(baseline, self._model.url), times)
        return [
            at_most(
                "start of an API, until it is ready", await start_s(partial(api_process, env), times), "s", 1, base
            ),
            at_most("start of a worker, until it serves", await start_s(partial(worker_process, env), times), "s", 3),
        ]

    async def turnover(self) -> list[Row]:
        """Runs that are over at once: what beginning and ending one costs, all that it commits included."""
        rounds = await by_turns(self._sizes.rounds, self._ours, self._theirs, self._turn_over)
        rate, base = rounds.medians(lambda result: result.ended / result.seconds)
        return [at_least(f"runs of 20 tokens completed, {self._sizes.at_once} at once", rate, "runs/s", base, base)]

    async def _turn_over(self, number: int, server: Server) -> TurnoverResult:
        request = Turnover(
            target=server.target,
            model=_SHORT,
            at_once=self._sizes.at_once,
            conversations=self._sizes.at_once * _CONVERSATIONS_PER_CLIENT,
            window_s=self._sizes.window_s,
        )
        watched = {**server.processes, "model": self._model.process}
        output, cpu = await run_load(_LOAD, msgspec.json.encode(request) + b"\n", server.check, watched)
        result = msgspec.json.decode(output, type=TurnoverResult)
        self._count_faults(server, result.gaps, result.failures)
        shares = " ".join(f"{name} {seconds:.2f}" for name, seconds in cpu.items())
        self._say(
            f"short runs, round {number}, {server.target.name}: {result.ended / result.seconds:.0f}/s, "
            f"{result.took.p50:.0f}/{result.took.p99:.0f} ms each; CPU s: {shares}"
        )
        return result

    async def resumes(self) -> list[Row]:
        """A client comes back to a run of 2,000 tokens after its first event."""
        request = Resuming(target=self._ours.target, model=_LONG, times=self._sizes.times)
        output, _ = await run_load(_LOAD, msgspec.json.encode(request) + b"\n", self._ours.check)
        result = msgspec.json.decode(output, type=ResumingResult)
        self._count_faults(self._ours, result.gaps, result.failures)
        name = f"resume after {result.events:,} events"
        return [
            at_most(f"{name}, first one, p50", result.first.p50, "ms", 5),
            at_most(f"{name}, all of them, p50", result.whole.p50, "ms", 50),
        ]

    async def cancels(self) -> list[Row]:
        """A cancel's way to the provider."""
        took = await cancel_runs(self._ours.target, self._near, self._sizes.times)
        return [
            at_most("cancel to the provider's connection closed, p50", took.p50, "ms", 20),
            beside("cancel to the provider's connection closed, p99", took.p99, "ms"),
        ]

    async def in_flight(self) -> list[Row]:
        """Many slow runs at once over two workers: every client gets every event of its run."""
        spec = Spec(
            target=self._ours.target, model="", runs=_IN_FLIGHT, stagger_s=10, window_s=self._sizes.window_s, drain_s=20
        )
        tokens = int((spec.stagger_s + spec.window_s + 2) * _IN_FLIGHT_RATE)
        spec = msgspec.structs.replace(spec, model=model_name(tokens, _IN_FLIGHT_RATE))
        measured = await measure(self._ours, self._model, spec)
        load = measured.load
        self._count_faults(self._ours, load.gaps, load.failures)
        cpu = " ".join(f"{name} {seconds:.2f}" for name, seconds in measured.cpu_s.items())
        self._say(
            f"{_IN_FLIGHT} runs at once: {load.ended} ended, {load.tokens / load.seconds:.0f} tokens/s, latency "
            f"{load.latency.p50:.1f}/{load.latency.p99:.1f} ms, first event {load.first_event.p50:.0f} ms; CPU s: {cpu}"
        )
        name = f"{_IN_FLIGHT:,} runs at once, two workers"
        return [
            at_most(f"{name}: not delivered whole", _IN_FLIGHT - load.ended + load.gaps, "runs", 0),
            beside(f"{name}: token, model to client, p99", load.latency.p99, "ms"),
        ]

    async def silent_streams(self) -> list[Row]:
        """Streams of runs whose model says nothing; each gets its run's end at last."""
        streams = self._sizes.streams
        runs = streams // _STREAMS_PER_RUN
        request = Holding(target=self._ours.target, model=_SILENT, runs=runs, streams=streams)
        held = await hold_streams(self._ours, request)
        self.faults += held.faults
        name = f"{streams:,} idle streams on one API"
        return [
            at_most(f"{name}: memory of each", held.kib, "KiB", 30),
            at_most(f"{name}: not served", held.faults, "streams", 0),
        ]

    def _count_faults(self, server: Server, gaps: int, failures: list[str]) -> None:
        if server is self._ours:
            self.faults += gaps + len(failures)
        if failures:
            self._say(f"{server.target.name}: {len(failures)} failures, such as {failures[0]}")
