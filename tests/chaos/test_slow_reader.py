"""One reader that never reads, among 100 that do."""

import asyncio
import re
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import psutil

from common.config import load_settings
from common.eventlog.log import EventLog
from common.ids import EventId
from common.redis import open_redis
from common.store.database import close_pool, open_pool
from tests.support.chaos import Chaos, percentile
from tests.support.eventually import eventually
from tests.support.player import Player
from tests.support.processes import RunningProcess
from tests.support.raw_stream import RawStream
from tests.support.system import Client, System, running_system

_READERS = 100
_TICK_S = 0.05
_STAMP = re.compile(rb"@(\d+):(\d+)@")
_LARGE = "x" * 60_000
_LARGE_EVENTS = 250
"""More than the buffers between a server and a client hold."""


async def test_reader_that_never_reads_is_no_burden(chaos: Chaos) -> None:
    """The others' p99 grows by at most a fifth, memory stays small, who takes nothing is cut and may come back."""
    async with running_system(forked=True) as system:
        api = await system.api()
        client = await system.client(api)
        async with _told_run(system, client) as player, AsyncExitStack() as stack:
            others = [_Reader(await client.stream(_run_of(player), str(EventId(1, player.n)))) for _ in range(_READERS)]
            reading = asyncio.gather(*(other.read() for other in others))
            stack.callback(reading.cancel)
            ended = asyncio.Event()
            ticking = asyncio.create_task(_tick(player, ended))
            stack.callback(ticking.cancel)
            await _compare(chaos, client, player, others)
            await _check_memory(chaos, api, client, player)
            if chaos.full:
                await _check_cut(chaos, api, client, player)
            ended.set()
            await ticking
            last = player.n
            await player.end()
            await asyncio.wait_for(reading, 20)
        for other in others:
            assert other.stream.ended_cleanly
            assert other.numbers == list(range(_LARGE_EVENTS + 2, last + 1)), "every event, once and in order"


class _Reader:
    """Takes whatever comes at once; how late each event was."""

    def __init__(self, stream: RawStream) -> None:
        self.stream = stream
        self.numbers: list[int] = []
        self.late_s: list[float] = []

    async def read(self) -> None:
        """Until the end."""
        while await self.stream.read_more():
            now = time.perf_counter_ns()
            for number, sent_at in _STAMP.findall(self.stream.body):
                self.numbers.append(int(number))
                self.late_s.append((now - int(sent_at)) / 1e9)
            self.stream.body = b""


def _run_of(player: Player) -> dict[str, str]:
    """The run as a client names it."""
    return {"id": str(player.id)}


@asynccontextmanager
async def _told_run(system: System, client: Client) -> AsyncIterator[Player]:
    """A run of this client's, of which a lot has been told; the test is its worker."""
    settings = load_settings(system.environment())
    pool, redis = await open_pool(settings, 2), open_redis(settings.redis_url)
    try:
        player = await Player.begin(pool, EventLog(redis, 600), client.workspace_id)
        for _ in range(_LARGE_EVENTS):
            await player.tell(_LARGE)
        yield player
    finally:
        await redis.aclose()
        await close_pool(pool)


async def _tick(player: Player, ended: asyncio.Event) -> None:
    """Cancelled, it could leave behind an event of which the player knows nothing."""
    while not ended.is_set():
        await player.tell(f"@{player.n + 1}:{time.perf_counter_ns()}@")
        await asyncio.sleep(_TICK_S)


async def _compare(chaos: Chaos, client: Client, player: Player, others: list[_Reader]) -> None:
    """By turns with and without the one that never reads: what else this machine does then meets both alike."""
    late: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(chaos.pick(2, 12)):
        for burdened in chaos.random.sample((False, True), 2):
            burden = await client.stream(_run_of(player)) if burdened else None
            await asyncio.sleep(0.2)
            for other in others:
                other.late_s.clear()
            await asyncio.sleep(chaos.pick(1, 2.5))
            late[burdened].append(percentile([late_s for other in others for late_s in other.late_s], 0.99))
            if burden is not None:
                burden.close()
    alone, burdened_s = (statistics.median(late[burdened]) for burdened in (False, True))
    chaos.figure("p99 of 100 readers", alone * 1000, unit="ms")
    chaos.figure("p99 beside one that never reads", burdened_s * 1000, unit="ms")
    chaos.figure("growth of the p99", (burdened_s / alone - 1) * 100, chaos.pick(None, 20), "%")


async def _check_memory(chaos: Chaos, api: RunningProcess, client: Client, player: Player) -> None:
    """Many that never read: the API keeps a few pages for each."""
    process = psutil.Process(api.pid)
    before = process.memory_info().rss
    burdens = [await client.stream(_run_of(player)) for _ in range(chaos.pick(10, 40))]
    sizes = [before]
    for _ in range(chaos.pick(10, 50)):
        await asyncio.sleep(0.1)
        sizes.append(process.memory_info().rss)
    for burden in burdens:
        burden.close()
    chaos.figure("memory per reader that never reads", (max(sizes) - before) / len(burdens) / 2**20, 4, "MiB")


async def _check_cut(chaos: Chaos, api: RunningProcess, client: Client, player: Player) -> None:
    """After 20 s without progress it is cut off, as if the network had been; it may go on where it was."""
    burden = await client.stream(_run_of(player))
    began_at = time.monotonic()
    port = burden.local_port
    await eventually(lambda: port not in _ports(api), 40, 0.2)
    chaos.figure("cut after", time.monotonic() - began_at, 25, "s")
    assert time.monotonic() - began_at > 20
    frames = await burden.read_to_end(20)
    assert not burden.ended_cleanly
    assert len(frames) < _LARGE_EVENTS, "it was never stuck"
    again = await client.stream(_run_of(player), frames[-1].id)
    await again.read_until(b"@", 20)
    ids = [frame.id for frame in (*frames, *again.frames)]
    assert ids == [f"1-{n}" for n in range(1, len(ids) + 1)]
    again.close()


def _ports(api: RunningProcess) -> set[int]:
    """The clients' ports of the connections that the API holds."""
    return {connection.raddr.port for connection in psutil.Process(api.pid).net_connections() if connection.raddr}
