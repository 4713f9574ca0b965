"""How long to wait for a provider that says nothing."""

import asyncio
import time
from typing import Any


class Patience:
    """Ends the block with TimeoutError once nothing has renewed it for `limit_s` seconds.

    One timer for the whole stream, which looks at the clock when it fires: a timer per event costs a fifth of it.
    """

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self._renewed_at = time.monotonic()
        self._timeout = asyncio.timeout(None)
        self._timer: asyncio.TimerHandle | None = None

    def renew(self, limit_s: float) -> None:
        """Something came; from here on `limit_s` seconds may pass."""
        self._renewed_at = time.monotonic()
        if limit_s != self.limit_s:
            self.limit_s = limit_s
            self._arm(limit_s)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()
        self._arm(self.limit_s)

    async def __aexit__(self, *failure: Any) -> None:
        if self._timer is not None:
            self._timer.cancel()
        await self._timeout.__aexit__(*failure)

    def _arm(self, after_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(after_s, self._look)

    def _look(self) -> None:
        left_s = self.limit_s - (time.monotonic() - self._renewed_at)
        if left_s > 0:
            self._arm(left_s)
        else:
            self._timeout.reschedule(asyncio.get_running_loop().time())
