"""What a long document takes in Postgres, and what making it short costs the process that does it."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple
from uuid import UUID

from bench.documents.servers import Shelf
from common.documents.compaction import compact

_TICK_S = 0.001


class Compacted(NamedTuple):
    """Bytes before and after, seconds, and milliseconds: the longest time for which the event loop did nothing else,
    beside the longest one over as many seconds with nothing to do.
    """

    typed_bytes: int
    bytes: int
    seconds: float
    pause_ms: float
    quiet_pause_ms: float
    failures: list[str]


async def measure_compaction(shelf: Shelf, updates: list[bytes], wanted: str) -> Compacted:
    """`updates` as a document of their own."""
    document_id = await shelf.make()
    await shelf.append(document_id, updates)
    before = await shelf.stored_bytes(document_id)
    pause_ms, seconds = await _longest_pause(lambda: _compact(shelf, document_id))
    quiet_pause_ms, _ = await _longest_pause(lambda: asyncio.sleep(seconds))
    after = await shelf.stored_bytes(document_id)
    failures = [] if await shelf.text(document_id) == wanted else ["the document says something else than was typed"]
    return Compacted(before, after, seconds, pause_ms, quiet_pause_ms, failures)


async def _compact(shelf: Shelf, document_id: UUID) -> None:
    if not await compact(shelf.pool, shelf.workspace_id, document_id):
        raise SystemExit("there was nothing to compact")


async def _longest_pause(work: Callable[[], Awaitable[None]]) -> tuple[float, float]:
    """In milliseconds; and how many seconds `work` has taken."""
    longest = 0.0

    async def tick() -> None:
        nonlocal longest
        while True:
            begun = time.monotonic()
            await asyncio.sleep(_TICK_S)
            longest = max(longest, time.monotonic() - begun - _TICK_S)

    ticking = asyncio.create_task(tick())
    await asyncio.sleep(0)
    begun = time.monotonic()
    await work()
    seconds = time.monotonic() - begun
    await asyncio.sleep(2 * _TICK_S)
    ticking.cancel()
    return longest * 1000, seconds
