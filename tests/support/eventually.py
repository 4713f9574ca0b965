"""Waiting for a condition instead of for a time."""

import asyncio
import inspect
from collections.abc import Callable
from typing import Any


async def eventually(predicate: Callable[[], Any], timeout_s: float = 5, interval_s: float = 0.01) -> Any:
    """Returns the first truthy answer of `predicate`, sync or async; fails with the last after `timeout_s`.

    An AssertionError in `predicate` counts as "not yet" and becomes the failure.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    while True:
        try:
            answer = predicate()
            seen = await answer if inspect.isawaitable(answer) else answer
            if seen:
                return seen
            failure = AssertionError(f"still {seen!r} after {timeout_s} s")
        except AssertionError as error:
            failure = error
        if loop.time() > deadline:
            raise failure
        await asyncio.sleep(interval_s)
