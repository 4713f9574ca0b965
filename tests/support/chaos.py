"""One run of a fault: its seed, its scale, what was done when, and the figures that it shows."""

import os
import random
import secrets
import time
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")
QUICK = {"LEASE_S": "2", "HEARTBEAT_S": "0.5", "SWEEP_S": "0.2"}
"""Short leases for the smoke; the full scale keeps the default ones."""
SMOKE_PATIENCE = 3
"""The smoke shares its machine with other tests: it takes so many times longer than promised for kept."""


class Chaos:
    """Full under `CHAOS=full` (`make chaos`), else the smoke that is part of `make test`."""

    def __init__(self, fault: str) -> None:
        self.title = fault
        self.full = os.environ.get("CHAOS") == "full"
        self.seed = int(os.environ.get("CHAOS_SEED") or secrets.randbits(32))
        self.random = random.Random(self.seed)
        self.log: list[str] = []
        self.figures: list[str] = []
        self._began_at = time.monotonic()

    @property
    def steady(self) -> dict[str, str]:
        """For workers that nobody kills or stops: quick to look for work, no lease for a busy machine to lose."""
        return {} if self.full else {**QUICK, "LEASE_S": "10"}

    @property
    def leases(self) -> dict[str, str]:
        """What the workers of this scale are configured with."""
        return {} if self.full else QUICK

    def pick(self, smoke: T, full: T) -> T:
        """A number of this scale."""
        return full if self.full else smoke

    def fault(self, what: str) -> None:
        """Notes what is done now."""
        self.log.append(f"{time.monotonic() - self._began_at:8.3f} s  {what}")

    def figure(self, name: str, value: float, limit: float | None = None, unit: str = "") -> None:
        """A line of the report; with a limit (of the same unit) a promise: fails the test beyond it.

        Times are promises of the full scale; the smoke has SMOKE_PATIENCE with them.
        """
        if limit is not None and unit == "s" and not self.full:
            limit *= SMOKE_PATIENCE
        unit = unit and f" {unit}"
        promised = "" if limit is None else f" (at most {limit:g}{unit})"
        self.figures.append(f"{name}: {value:.4g}{unit}{promised}")
        assert limit is None or value <= limit, self.figures[-1]

    def report(self) -> str:
        """The fault, its seed, its figures and its log."""
        scale = "full" if self.full else "smoke"
        lines = [f"{self.title} [{scale}, CHAOS_SEED={self.seed}]", *self.figures, *self.log]
        return "\n    ".join(lines)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that `share` (0 to 1) of all values do not exceed; 0 when there are none."""
    ordered = sorted(values)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)] if ordered else 0.0
