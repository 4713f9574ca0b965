"""The load generator of operations: `python -m bench.operations.load` reads a request from standard input, as one line.

A process of its own, so that its CPU is known and never counted with the server's.
"""

import asyncio
import itertools
import json
import sys
import time

import msgspec
import uvloop

from bench.load import quantiles
from bench.operations.spec import (
    Holding,
    HoldingResult,
    Request,
    Resuming,
    ResumingResult,
    Turnover,
    TurnoverResult,
)
from bench.requests import client_of, get_request, post_request, prepare
from bench.spec import WARM_UP_S, Target
from bench.stream import Stream

_AT_ONCE = 50
_FIRST_ID = "1-1"


async def run(request: Request) -> msgspec.Struct:
    """Carries it out; the answer is to be written to standard output."""
    match request:
        case Turnover():
            return await _turn_over(request)
        case Holding():
            return await _hold(request)
        case Resuming():
            return await _resume(request)


async def _turn_over(request: Turnover) -> TurnoverResult:
    async with client_of(request.target) as client:
        paths = itertools.cycle(await prepare(client, request.target, request.conversations))
    first = time.monotonic() + WARM_UP_S
    last = first + request.window_s
    print(json.dumps([first, last]), file=sys.stderr, flush=True)
    streams: list[Stream] = []
    took_ms: list[float] = []

    async def one_after_the_other() -> None:
        while time.monotonic() < last:
            stream = await _read(request.target, post_request(request.target, next(paths), request.model))
            streams.append(stream)
            now = time.monotonic()
            if b'"type":"done"' in stream.terminal and first <= now < last:
                took_ms.append(now * 1e3 - stream.sent_ns / 1e6)

    async with asyncio.timeout(last - time.monotonic() + request.drain_s), asyncio.TaskGroup() as group:
        for _ in range(request.at_once):
            group.create_task(one_after_the_other())
    return TurnoverResult(
        ended=len(took_ms),
        seconds=request.window_s,
        took=quantiles(took_ms),
        gaps=sum(stream.gaps for stream in streams),
        failures=[failure for stream in streams for failure in _failures(stream)],
    )


async def _hold(request: Holding) -> HoldingResult:
    target = request.target
    run_ids: list[str] = []
    async with client_of(target) as client, asyncio.timeout(request.patience_s * 3):
        places = asyncio.Semaphore(_AT_ONCE)

        async def begin(path: str) -> None:
            async with places:
                body = {"content": "Wait.", "provider": "anthropic", "model": request.model}
                response = (await client.post(path, json=body)).raise_for_status()
                run_ids.append(response.json()["run"]["id"])

        async def follow(run_id: str) -> Stream:
            async with places:
                stream = await _open(target, get_request(target, f"/v1/runs/{run_id}/stream"))
                await stream.begun
            return stream

        await asyncio.gather(*(begin(path) for path in await prepare(client, target, request.runs)))
        await _told("began")
        turns = itertools.islice(itertools.cycle(run_ids), request.streams)
        streams = await asyncio.gather(*(follow(run_id) for run_id in turns))
        await _told("held")

        async def cancel(run_id: str) -> None:
            async with places:
                (await client.post(f"/v1/runs/{run_id}/cancel")).raise_for_status()

        await asyncio.gather(*(cancel(run_id) for run_id in run_ids))
        await asyncio.gather(*(stream.ended for stream in streams))
    ended = sum(b'"type":"cancelled"' in stream.terminal for stream in streams)
    return HoldingResult(ended=ended, failures=[failure for stream in streams for failure in _failures(stream)])


async def _resume(request: Resuming) -> ResumingResult:
    async with asyncio.timeout(request.patience_s), client_of(request.target) as client:
        [path] = await prepare(client, request.target, 1)
        await _read(request.target, post_request(request.target, path, request.model))
        [run] = (await client.get("/v1/runs", params={"limit": 1})).raise_for_status().json()["data"]
        again = get_request(request.target, f"/v1/runs/{run['id']}/stream", {"Last-Event-ID": _FIRST_ID})
        streams, whole_ms = [], []
        for _ in range(request.times):
            stream = await _read(request.target, again, after=1)
            streams.append(stream)
            whole_ms.append((time.monotonic_ns() - stream.sent_ns) / 1e6)
    return ResumingResult(
        events=min(stream.events for stream in streams),
        first=quantiles([(stream.first_event_ns - stream.sent_ns) / 1e6 for stream in streams]),
        whole=quantiles(whole_ms),
        gaps=sum(stream.gaps for stream in streams),
        failures=[failure for stream in streams for failure in _failures(stream)],
    )


async def _read(target: Target, request: bytes, after: int = 0) -> Stream:
    """The stream once it is over; its ids are expected to go on `after` this one."""
    stream = await _open(target, request, after)
    try:
        await stream.ended
    finally:
        stream.close()
    return stream


async def _open(target: Target, request: bytes, after: int = 0) -> Stream:
    stream = Stream(lambda _, __: None, after)
    await asyncio.get_running_loop().create_connection(lambda: stream, "127.0.0.1", target.port)
    stream.send(request)
    return stream


async def _told(word: str) -> None:
    """Says `word`, and waits to be told to go on."""
    print(word, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.readline)


def _failures(stream: Stream) -> list[str]:
    if stream.status == 200 and stream.terminal and b'"type":"error"' not in stream.terminal:
        return []
    return [f"{stream.status}: {stream.terminal[:300].decode(errors='replace')}"]


if __name__ == "__main__":
    answer = uvloop.run(run(msgspec.json.decode(sys.stdin.buffer.readline(), type=Request)))
    sys.stdout.buffer.write(msgspec.json.encode(answer))
