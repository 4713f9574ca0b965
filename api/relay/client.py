"""One client's place at the hub: a bounded queue, and whether it must go back to the log."""

import asyncio
from collections import deque
from typing import NamedTuple

from api.metrics import STREAM_OVERFLOWS
from api.relay.batch import Batch
from common.ids import EventId

_MAX_QUEUED_BATCHES = 256
_MAX_QUEUED_BYTES = 256 * 1024


class Arrival(NamedTuple):
    """A batch as it was published, events `first` to `last` of one attempt; `size` in bytes. One for all clients."""

    first: EventId
    last: EventId
    batch: Batch
    size: int


class Client:
    """Filled by the hub, emptied by one follower. A client that falls behind is not buffered for."""

    __slots__ = ("_arrivals", "_bytes", "_waiter", "behind")

    def __init__(self) -> None:
        self._arrivals: deque[Arrival] = deque()
        self._bytes = 0
        self._waiter: asyncio.Future[bool] | None = None
        self.behind = True

    def push(self, arrival: Arrival) -> None:
        """Queues it; the follower reads the log instead when there is no room."""
        if self.behind:
            return
        if len(self._arrivals) >= _MAX_QUEUED_BATCHES or self._bytes + arrival.size > _MAX_QUEUED_BYTES:
            STREAM_OVERFLOWS.inc()
            self.fall_behind()
            return
        self._arrivals.append(arrival)
        self._bytes += arrival.size
        self._wake(True)

    def fall_behind(self) -> None:
        """Whatever comes next is to be read from the log."""
        self.behind = True
        self._arrivals.clear()
        self._bytes = 0
        self._wake(True)

    def catch_up(self) -> None:
        """The follower begins to read the log: what is published from now on is queued again."""
        self.behind = False

    def take(self) -> list[Arrival]:
        """Everything queued."""
        arrivals = list(self._arrivals)
        self._arrivals.clear()
        self._bytes = 0
        return arrivals

    def retry(self) -> None:
        """Wakes a follower that is still behind because a read of it failed."""
        if self.behind:
            self._wake(True)

    async def wait(self, timeout_s: float) -> bool:
        """Whether something happened within `timeout_s` seconds, or is queued already: it came during a read."""
        if self._arrivals:
            return True
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        timer = loop.call_later(timeout_s, self._wake, False)
        try:
            return await self._waiter
        finally:
            timer.cancel()
            self._waiter = None

    def _wake(self, happened: bool) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(happened)
