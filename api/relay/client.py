"""One client's place at the hub: a bounded queue, and whether it must go back to the log."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from api.metrics import STREAM_OVERFLOWS
from api.relay.batch import Batch
from common.ids import EventId

_MAX_QUEUED_BATCHES = 256
_MAX_QUEUED_BYTES = 256 * 1024
_INSTANT_S = 0.001
"""What clocks and timers of event loops may differ by."""


class Arrival(NamedTuple):
    """A batch as it was published, events `first` to `last` of one attempt; `size` in bytes. One for all clients."""

    first: EventId
    last: EventId
    batch: Batch
    size: int


class Client:
    """Filled by the hub, emptied by one follower. A client that falls behind is not buffered for.

    While the follower waits and nothing is queued, an arrival is first offered to `direct`, which says whether it has
    handed it on: then nobody has to be woken. What `direct` raises, the follower's wait raises.
    """

    __slots__ = ("_arrivals", "_bytes", "_loop", "_silent_since", "_timer", "_waiter", "behind", "direct")

    def __init__(self) -> None:
        self._arrivals: deque[Arrival] = deque()
        self._bytes = 0
        self._loop = asyncio.get_running_loop()
        self._silent_since = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._waiter: asyncio.Future[bool] | None = None
        self.behind = True
        self.direct: Callable[[Arrival], bool] | None = None

    def push(self, arrival: Arrival) -> None:
        """Queues it, unless it is handed on; the follower reads the log instead when there is no room."""
        if self.behind:
            return
        waiter = self._waiter
        if waiter is not None and self.direct is not None and not waiter.done():
            try:
                if self.direct(arrival):
                    self._silent_since = self._loop.time()
                    return
            except Exception as error:
                waiter.set_exception(error)
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

    def break_silence(self) -> None:
        """The client has just been told something: its silence begins now."""
        self._silent_since = self._loop.time()

    async def wait(self, silence_s: float) -> bool:
        """Whether something happened, or is queued already: it came during a read. False once the client has been told
        nothing for `silence_s` seconds.
        """
        if self._arrivals:
            return True
        self._waiter = self._loop.create_future()
        self._time_silence(silence_s)
        try:
            return await self._waiter
        finally:
            if self._timer is not None:
                self._timer.cancel()
            self._waiter = None

    def _time_silence(self, silence_s: float) -> None:
        left_s = self._silent_since + silence_s - self._loop.time()
        if left_s > _INSTANT_S:
            # What is handed on meanwhile moves no timer: there is another look then.
            self._timer = self._loop.call_later(left_s, self._time_silence, silence_s)
        else:
            self._wake(False)

    def _wake(self, happened: bool) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(happened)
