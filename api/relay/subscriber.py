"""The process's one subscriber connection to Redis, shared by every stream.

redis-py's own PubSub reconnects and subscribes again in silence, and what was published meanwhile is missing
without a word. Here each subscription is confirmed anew on each connection, so that whoever reads along knows
when to look at the log again.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable, Iterable
from typing import Any

import structlog
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection

from api.metrics import SUBSCRIBER_LOSSES
from api.relay.receiver import Receiver
from common.redis import REDIS_DOWN

_PING_S = 2.0
_CONNECT_S = 3.0
_BACKOFF_S = (0.05, 1.0)
_CHANNELS_PER_COMMAND = 500

_log = structlog.get_logger(__name__)


class Subscriber:
    """Keeps the channels that are wanted subscribed, over any number of connections.

    `on_message(channel, data)` gets what is published, `on_confirmed(channel)` says that from here on nothing
    is missed (again after every reconnect), `on_lost()` that everything may be. With nothing wanted it does
    nothing.
    """

    def __init__(
        self,
        redis: Redis,
        *,
        on_message: Callable[[bytes, bytes], None],
        on_confirmed: Callable[[bytes], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._redis = redis
        self._on_message = on_message
        self._on_confirmed = on_confirmed
        self._on_lost = on_lost
        self._wanted: set[bytes] = set()
        self._changed = asyncio.Event()
        self._dirty: set[bytes] = set()
        self._sent: set[bytes] = set()
        self._unconfirmed: dict[bytes, int] = {}
        self._awaiting_pong = False
        self._serving = False
        self._away = False

    @property
    def subscriptions(self) -> int:
        """Channels subscribed on the wire, or about to be."""
        return len(self._sent | self._wanted)

    @property
    def connected(self) -> bool:
        """Whether Redis answers as far as anybody knows."""
        return self._serving

    @property
    def away(self) -> bool:
        """Whether Redis is known not to answer: it was lost, or could not be reached, and is not back."""
        return self._away

    def subscribe(self, channel: bytes) -> None:
        """Wants `channel`; `on_confirmed` follows, at once or whenever Redis is there."""
        self._wanted.add(channel)
        self._touch(channel)

    def unsubscribe(self, channel: bytes) -> None:
        """No longer wants `channel`."""
        self._wanted.discard(channel)
        self._touch(channel)

    async def run(self) -> None:
        """Serves until cancelled."""
        backoff, limit = _BACKOFF_S
        while True:
            await self._changed.wait()
            if not self._wanted:
                self._changed.clear()
                self._away = False  # as far as anybody knows: nobody looks any more
                continue
            connection = self._make_connection()
            try:
                async with asyncio.timeout(_CONNECT_S):
                    await connection.connect()  # type: ignore[no-untyped-call]
                backoff = _BACKOFF_S[0]
                self._away = False
                await self._serve(connection)
            except (*REDIS_DOWN, TimeoutError) as error:
                _log.warning("subscriber_lost", error=str(error))
            except Exception:
                # Whatever Redis said that nobody expected: without a subscriber, every stream would only be polled.
                _log.exception("subscriber_broke")
            finally:
                SUBSCRIBER_LOSSES.inc()
                self._away = True
                self._on_lost()
                self._changed.set()
                await connection.disconnect(nowait=True)
            await self._forget_connections()
            await asyncio.sleep(backoff * random.uniform(0.5, 1))  # noqa: S311 -- jitter
            backoff = min(limit, backoff * 2)

    def _touch(self, channel: bytes) -> None:
        self._dirty.add(channel)
        self._changed.set()

    def _make_connection(self) -> AbstractConnection:
        pool = self._redis.connection_pool
        # Silence is no error here, and whatever goes wrong must be seen by `run`, not retried underneath it.
        own: dict[str, Any] = {
            "socket_timeout": None,
            "retry": None,
            "retry_on_error": [],
            "retry_on_timeout": False,
            "health_check_interval": 0,
            "protocol": 2,
        }
        connection: AbstractConnection = pool.connection_class(**{**pool.connection_kwargs, **own})
        return connection

    async def _forget_connections(self) -> None:
        """Where one connection was lost, those that lie idle are as well: who got one would wait for its timeout."""
        # The pool's own `disconnect` waits for each, and closes what somebody has taken and opened again meanwhile.
        for connection in list(self._redis.connection_pool._available_connections):
            with contextlib.suppress(*REDIS_DOWN):
                await connection.disconnect(nowait=True)

    async def _serve(self, connection: AbstractConnection) -> None:
        self._sent.clear()
        self._unconfirmed.clear()
        self._awaiting_pong = False
        self._dirty = set(self._wanted)
        self._serving = True
        receiver = Receiver.of(connection, self._take)
        tasks = [
            receiver.lost,
            *(
                asyncio.create_task(part(receiver), name=f"subscriber {part.__name__}")
                for part in (self._write, self._ping)
            ),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            self._serving = False
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._sent.clear()

    def _take(self, reply: list[Any]) -> None:
        self._awaiting_pong = False
        if reply[0] == b"message":
            self._on_message(reply[1], reply[2])
        elif reply[0] == b"subscribe":
            self._confirm(reply[1])

    def _confirm(self, channel: bytes) -> None:
        waiting = self._unconfirmed.pop(channel) - 1
        if waiting:
            # An UNSUBSCRIBE and another SUBSCRIBE are still under way behind this one.
            self._unconfirmed[channel] = waiting
        elif channel in self._wanted and channel in self._sent:
            self._on_confirmed(channel)

    async def _write(self, receiver: Receiver) -> None:
        """The only one that subscribes and unsubscribes, so the order on the wire is the order of the wishes."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            dirty, self._dirty = self._dirty, set()
            leaving = [channel for channel in dirty if channel in self._sent and channel not in self._wanted]
            joining = [channel for channel in dirty if channel in self._wanted and channel not in self._sent]
            for channel in dirty & self._wanted & self._sent:
                if channel not in self._unconfirmed:
                    self._on_confirmed(channel)
            for some in _chunks(leaving):
                self._sent.difference_update(some)
                receiver.send("UNSUBSCRIBE", *some)
            for some in _chunks(joining):
                self._sent.update(some)
                for channel in some:
                    self._unconfirmed[channel] = self._unconfirmed.get(channel, 0) + 1
                receiver.send("SUBSCRIBE", *some)

    async def _ping(self, receiver: Receiver) -> None:
        """Finds a half-open connection: one that has said nothing at all since the last ping."""
        while True:
            await asyncio.sleep(_PING_S)
            if not self._wanted:
                continue
            if self._awaiting_pong:
                raise TimeoutError("no answer to a ping")
            self._awaiting_pong = True
            receiver.send("PING")


def _chunks(channels: list[bytes]) -> Iterable[list[bytes]]:
    for start in range(0, len(channels), _CHANNELS_PER_COMMAND):
        yield channels[start : start + _CHANNELS_PER_COMMAND]
