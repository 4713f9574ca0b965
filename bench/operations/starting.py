"""How long a process takes from its start to its first work."""

import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from statistics import median
from typing import Any

Start = Callable[[], AbstractAsyncContextManager[Any]]


async def start_s(start: Start, times: int) -> float:
    """The median of `times` starts, one after the other, in seconds: an API is ready, a worker known to the API."""
    took = []
    for _ in range(times):
        begun = time.monotonic()
        async with start():
            took.append(time.monotonic() - begun)
    return median(took)
