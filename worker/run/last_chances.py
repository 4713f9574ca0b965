"""Runs that the next crash inside a tool would end take turns with their tools: the guilty one goes alone.

A crash takes all runs of a worker with it, and each whose tool was running is a suspect.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

PATIENCE_S = 30.0
"""How long one waits for its turn. Many of them with slow tools would else wait for one another for hours; who goes
without a turn only risks to be taken for the guilty one."""


class LastChances:
    """One turn for all such runs of a worker."""

    def __init__(self, patience_s: float = PATIENCE_S) -> None:
        self._patience_s = patience_s
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Alone among the suspects, unless that takes too long to wait for."""
        ours = False
        with suppress(TimeoutError):
            async with asyncio.timeout(self._patience_s):
                ours = await self._turn.acquire()
        try:
            yield
        finally:
            if ours:
                self._turn.release()
