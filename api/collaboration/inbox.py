"""What a room has to do next: bounded in number and bytes, so that who sends more than it can do waits."""

import asyncio
from collections import deque
from typing import Generic, TypeVar

_MAX_ITEMS = 2_000
_MAX_BYTES = 8 * 1024 * 1024

Item = TypeVar("Item")


class InboxClosed(Exception):
    """Nobody takes anything out any more."""


class Inbox(Generic[Item]):
    """A queue with many writers and one reader."""

    def __init__(self) -> None:
        self._items: deque[tuple[Item, int]] = deque()
        self._bytes = 0
        self._closed = False
        self._filled = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        return not self._items

    async def put(self, item: Item, size: int = 0) -> None:
        """Waits for room. `size` is in bytes. Raises InboxClosed."""
        while not self.offer(item, size):
            if self._closed:
                raise InboxClosed
            await self._has_room.wait()

    def offer(self, item: Item, size: int = 0) -> bool:
        """Puts it in at once; whether that could be done. One that comes while there is room may be of any size."""
        if self._closed or not self._has_room.is_set():
            return False
        self._items.append((item, size))
        self._bytes += size
        if len(self._items) >= _MAX_ITEMS or self._bytes >= _MAX_BYTES:
            self._has_room.clear()
        self._filled.set()
        return True

    async def take(self, limit: int) -> list[Item]:
        """What has come, at least one and at most `limit`."""
        while not self._items:
            self._filled.clear()
            await self._filled.wait()
        taken: list[Item] = []
        while self._items and len(taken) < limit:
            item, size = self._items.popleft()
            self._bytes -= size
            taken.append(item)
        self._has_room.set()
        return taken

    def close(self) -> None:
        """Whoever waits for room gets InboxClosed."""
        self._closed = True
        self._has_room.set()
