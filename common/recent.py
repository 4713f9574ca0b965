"""An answer that many ask for, read at most once in a while."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Recent(Generic[T]):
    """What `read` gave within the last `for_s` seconds; who asks while it is being read gets what comes of that.

    A failure is whose reading failed, and is not kept.
    """

    def __init__(self, read: Callable[[], Awaitable[T]], for_s: float) -> None:
        self._read = read
        self._for_s = for_s
        self._lock = asyncio.Lock()
        self._known: tuple[float, T] | None = None

    async def get(self) -> T:
        """Raises what `read` raises."""
        async with self._lock:
            if self._known is None or time.monotonic() - self._known[0] >= self._for_s:
                self._known = (time.monotonic(), await self._read())
            return self._known[1]
