"""The load generator: `python -m bench.load` reads a Spec from standard input and prints a LoadResult.

A process of its own, so that its CPU is known and never counted with the server's.
"""

import asyncio
import json
import statistics
import sys
import time

import httpx
import msgspec
import uvloop

from bench.requests import client_of, post_request, prepare
from bench.spec import WARM_UP_S, LoadResult, Quantiles, Spec, Target
from bench.stream import Stream

_CANCEL_ALL_S = 60


async def run(spec: Spec) -> LoadResult:
    """Prepares the conversations, tells the window's begin and end on standard error, and measures."""
    async with client_of(spec.target) as client:
        paths = await prepare(client, spec.target, spec.runs)
        load = _Load(spec, paths)
        if spec.one_by_one:
            result = await load.one_by_one()
        else:
            result = await load.together()
        await _cancel_all(client, spec.target)
    return result


class _Load:
    def __init__(self, spec: Spec, paths: list[str]) -> None:
        self._spec = spec
        self._paths = paths
        self._window_ns = (0, 2**63)
        self._latencies: list[float] = []
        self._streams: list[Stream] = []
        self._failures: list[str] = []

    async def one_by_one(self) -> LoadResult:
        began = time.monotonic()
        for path in self._paths:
            await self._follow(path, deadline_s=self._spec.drain_s)
        return self._result(time.monotonic() - began)

    async def together(self) -> LoadResult:
        spec = self._spec
        begin = time.monotonic()
        first = begin + spec.stagger_s + WARM_UP_S
        last = first + spec.window_s
        self._window_ns = (int(first * 1e9), int(last * 1e9))
        print(json.dumps([first, last]), file=sys.stderr, flush=True)
        deadline_s = last + spec.drain_s - begin
        step = spec.stagger_s / spec.runs

        async def begin_at(number: int, path: str) -> None:
            await asyncio.sleep(number * step)
            await self._follow(path, deadline_s - number * step)

        async with asyncio.TaskGroup() as group:
            for number, path in enumerate(self._paths):
                group.create_task(begin_at(number, path))
            group.create_task(asyncio.sleep(last - begin))
        return self._result(spec.window_s)

    async def _follow(self, path: str, deadline_s: float) -> None:
        stream = Stream(self._count)
        self._streams.append(stream)
        try:
            async with asyncio.timeout(deadline_s):
                await asyncio.get_running_loop().create_connection(lambda: stream, "127.0.0.1", self._spec.target.port)
                stream.send(post_request(self._spec.target, path, self._spec.model))
                await stream.ended
        except (TimeoutError, OSError) as error:
            if not stream.first_event_ns:
                self._failures.append(f"{type(error).__name__}: nothing came")
        finally:
            stream.close()
        if stream.status not in (0, 200) or b'"type":"error"' in stream.terminal:
            self._failures.append(f"{stream.status}: {stream.terminal[:300].decode(errors='replace')}")

    def _count(self, now_ns: int, stamps: list[bytes]) -> None:
        first, last = self._window_ns
        if first <= now_ns < last:
            self._latencies.extend((now_ns - int(stamp)) / 1e6 for stamp in stamps)

    def _result(self, seconds: float) -> LoadResult:
        streams, now = self._streams, time.monotonic_ns()
        events = [((stream.first_event_ns or now) - stream.sent_ns) / 1e6 for stream in streams if stream.sent_ns]
        tokens = [((stream.first_token_ns or now) - stream.sent_ns) / 1e6 for stream in streams if stream.sent_ns]
        return LoadResult(
            tokens=len(self._latencies),
            seconds=seconds,
            latency=quantiles(self._latencies),
            first_event=quantiles(events),
            first_token=quantiles(tokens),
            ended=sum(b'"type":"done"' in stream.terminal for stream in streams),
            gaps=sum(stream.gaps for stream in streams),
            failures=self._failures,
        )


async def _cancel_all(client: httpx.AsyncClient, target: Target) -> None:
    """Leaves nothing running for the next measurement, also of streams that never heard of their run."""
    if not target.token:
        return
    async with asyncio.timeout(_CANCEL_ALL_S):
        for state in ("queued", "running"):
            while runs := await _runs_in(client, state):
                for run_id in runs:
                    (await client.post(f"/v1/runs/{run_id}/cancel")).raise_for_status()


async def _runs_in(client: httpx.AsyncClient, state: str) -> list[str]:
    response = await client.get("/v1/runs", params={"state": state, "limit": 100})
    return [run["id"] for run in response.raise_for_status().json()["data"]]


def quantiles(values: list[float]) -> Quantiles:
    """p50 and p99; of a single value, and of none (0), too: the failures beside it say what is wrong."""
    if len(values) < 2:
        return Quantiles(*(values or [0.0]) * 2)
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return Quantiles(cuts[49], cuts[98])


if __name__ == "__main__":
    result = uvloop.run(run(msgspec.json.decode(sys.stdin.buffer.read(), type=Spec)))
    sys.stdout.buffer.write(msgspec.json.encode(result))
