"""How much of a room's time each user may take: edits that are made to be slow to merge must not hold up the others."""

import time

_MOST_S = 2.0
_PER_S = 0.1


class Budgets:
    """By user, in seconds. What was spent comes back with time."""

    def __init__(self) -> None:
        self._left: dict[str, tuple[float, float]] = {}

    def spend(self, user: str, seconds: float) -> bool:
        """Whether the user had so much left."""
        now = time.monotonic()
        left, then = self._left.get(user, (_MOST_S, now))
        left = min(_MOST_S, left + (now - then) * _PER_S) - seconds
        self._left[user] = max(left, -_MOST_S), now
        return left >= 0
