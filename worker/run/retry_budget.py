"""How many retries a provider is asked for in all: its outage must not make every run of a worker ask three times."""

import time
from collections.abc import Callable, Iterable

import structlog

from common.config import Settings

_log = structlog.get_logger(__name__)


class RetryBudget:
    """A bucket of retries for one provider in one process: full at first, never more than `size`.

    Each retry takes one out, a whole answer pays `ratio` of one back, and one returns by itself every `refill_s`
    seconds. With an empty bucket nobody waits: the failure is the run's. After gRPC's retry throttling (proposal A6,
    "Throttling Retry Attempts and Hedged RPCs": the fraction that a success pays, no waiting) and Finagle's
    RetryBudget (the share that time pays, without which a process with few requests never retries again).
    """

    def __init__(
        self,
        provider: str,
        *,
        size: int,
        ratio: float,
        refill_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._provider = provider
        self._size = size
        self._ratio = ratio
        self._refill_s = refill_s
        self._clock = clock
        self._left = float(size)
        self._counted_at = clock()
        self._spent = False

    def take(self) -> bool:
        """Takes one retry out; False when none is left. An outage is logged once, however many runs it meets."""
        self._refill()
        if self._left >= 1:
            self._left -= 1
            return True
        if not self._spent:
            self._spent = True
            _log.warning("provider_retries_spent", provider=self._provider)
        return False

    def pay_back(self) -> None:
        """A whole answer has come."""
        self._refill()
        self._add(self._ratio)

    def _refill(self) -> None:
        now = self._clock()
        self._add((now - self._counted_at) / self._refill_s)
        self._counted_at = now

    def _add(self, retries: float) -> None:
        self._left = min(self._size, self._left + retries)
        # Only when half full: what trickles in during an outage is taken at once, and would log it again and again.
        if self._spent and self._left >= max(1, self._size / 2):
            self._spent = False
            _log.info("provider_retries_back", provider=self._provider)


def open_budgets(settings: Settings, providers: Iterable[str]) -> dict[str, RetryBudget]:
    """A full budget for each of these providers, by name."""
    return {
        name: RetryBudget(
            name,
            size=settings.provider_retry_budget,
            ratio=settings.provider_retry_ratio,
            refill_s=settings.provider_retry_refill_s,
        )
        for name in providers
    }
