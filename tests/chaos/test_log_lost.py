"""The log of a live run is lost, in whole or in part, or refuses what it is told."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import cast

from redis.asyncio import Redis

from common.eventlog.keys import cancel_channel
from common.queue import QUEUES, wake_of
from tests.support.chaos import Chaos
from tests.support.lanes import Lanes, output_when_it_fails
from tests.support.planned_model import plan
from tests.support.system import running_system

_FULL = "1"  # byte: whatever would need memory is answered with OOM
_UNLIMITED = "0"
_BELLS = [key for queue in QUEUES.values() for key in (queue, wake_of(queue))]


async def test_runs_outlive_the_loss_of_their_logs(chaos: Chaos) -> None:
    """FLUSHALL, keys deleted, expired, of another type, no memory left: clients see `started` again, and no gap."""
    async with running_system(forked=True) as system:
        apis = await asyncio.gather(*(system.api() for _ in range(chaos.pick(1, 2))))
        workers = await asyncio.gather(*(system.worker(**chaos.steady) for _ in range(chaos.pick(1, 2))))
        clients = [await system.client(api) for api in apis]
        lanes = Lanes(clients, chaos.pick(8, 40), lambda: plan(steps=2, tools="look,charge", words=30, pause_ms=15))
        async with Redis.from_url(system.servers.redis_url, decode_responses=True) as redis:
            faults = Faults(chaos, redis, lanes)
            with output_when_it_fails(*apis, *workers):
                await _suffer(chaos, faults, lanes)
        await lanes.check(chaos, system)
        [row] = await system.rows("select count(*) from runs where attempt > claimed_attempt")
        chaos.figure("runs that began a new attempt", row[0])
        assert row[0], "no fault met a run"


async def _suffer(chaos: Chaos, faults: "Faults", lanes: Lanes) -> None:
    async with lanes:
        for _ in range(chaos.pick(2, 9)):
            for fault in chaos.random.sample(faults.all, len(faults.all)):
                await lanes.go_on(chaos.random.uniform(0, chaos.pick(0.3, 0.5)))
                await fault()


class Faults:
    """What may happen to the keys of a system under load."""

    def __init__(self, chaos: Chaos, redis: Redis, lanes: Lanes) -> None:
        self._chaos = chaos
        self._redis = redis
        self._lanes = lanes
        self.all: list[Callable[[], Awaitable[None]]] = [
            self.flush,
            self.delete_events,
            self.delete_heads,
            self.delete_single_keys,
            self.expire,
            self.turn_into_text,
            self.block_the_queue,
            self.fill,
            self.say_nonsense,
        ]

    async def flush(self) -> None:
        """Everything is gone, the scripts too."""
        self._chaos.fault("FLUSHALL, SCRIPT FLUSH")
        await self._redis.flushall()
        await self._redis.script_flush()

    async def delete_events(self) -> None:
        """All streams are gone, their heads are not."""
        await self._delete(await self._redis.keys("run:*:events"))

    async def delete_heads(self) -> None:
        """All heads are gone, their streams are not."""
        await self._delete(await self._redis.keys("run:*:head"))

    async def delete_single_keys(self) -> None:
        """Some runs lose one key, some the other, some both."""
        await self._delete(await self._some(0.3))

    async def expire(self) -> None:
        """Some keys are over before their time."""
        keys = await self._some(0.3)
        self._chaos.fault(f"{len(keys)} keys expire")
        for key in keys:
            await self._redis.pexpire(key, 1)

    async def turn_into_text(self) -> None:
        """Some keys are of another type; half of them for good, so that their runs cannot be told at all."""
        keys = await self._some(0.2)
        self._chaos.fault(f"{len(keys)} keys become texts")
        for key in keys:
            await self._redis.set(key, "text")
        await self._lanes.go_on(0.3)
        if healed := keys[len(keys) // 2 :]:
            await self._redis.delete(*healed)

    async def block_the_queue(self) -> None:
        """No bell can be rung, and none heard."""
        self._chaos.fault("the queue becomes a text")
        for key in _BELLS:
            await self._redis.set(key, "text")
        await self._lanes.go_on(self._chaos.pick(0.5, 2.0))
        await self._redis.delete(*_BELLS)

    async def fill(self) -> None:
        """There is no memory left, for a while."""
        self._chaos.fault("OOM")
        await self._redis.config_set("maxmemory", _FULL)
        await self._lanes.go_on(self._chaos.pick(0.5, 2.0))
        await self._redis.config_set("maxmemory", _UNLIMITED)

    async def say_nonsense(self) -> None:
        """What nobody of ours ever publishes, rings or signals."""
        self._chaos.fault("nonsense on every channel and in the queue")
        live = [key.replace(":events", ":live") for key in await self._redis.keys("run:*:events")]
        for channel in (cancel_channel(), *live):
            await self._redis.publish(channel, b"\xff nonsense")
        for queue in QUEUES.values():
            await self._redis.zadd(queue, {"nonsense": 0})
            # redis-py types one method for both of its clients.
            await cast("Awaitable[int]", self._redis.rpush(wake_of(queue), "nonsense"))

    async def _delete(self, keys: list[str]) -> None:
        kinds = sorted({key.rpartition(":")[2] for key in keys})
        self._chaos.fault(f"{len(keys)} keys deleted: {', '.join(kinds)}")
        if keys:
            await self._redis.delete(*keys)

    async def _some(self, share: float) -> list[str]:
        keys = sorted(await self._redis.keys("run:*"))
        return [key for key in keys if self._chaos.random.random() < share]
