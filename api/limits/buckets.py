"""Token buckets, each kept as the one time at which it is full again."""

from collections.abc import Sequence
from typing import NamedTuple

_TOLERANCE_S = 0.0005
_MOST_KEPT = 100_000


class Bucket(NamedTuple):
    """It holds `burst` tokens, and `rate` come back each second."""

    key: str
    rate: int
    burst: int


class Buckets:
    """Those that this process knows. Times are seconds of any one clock."""

    def __init__(self) -> None:
        self._full_at: dict[str, float] = {}

    def take(self, buckets: Sequence[Bucket], now: float) -> float:
        """0 when each had a token, which is taken; else none is, and the answer is in how many seconds each will."""
        waits = [self._full_at.get(b.key, now) - now - (b.burst - 1) / b.rate for b in buckets]
        wait = max(waits, default=0.0)
        if wait > _TOLERANCE_S:
            return wait
        if len(self._full_at) > _MOST_KEPT:
            self._full_at = {key: full_at for key, full_at in self._full_at.items() if full_at > now}
        for bucket in buckets:
            self._full_at[bucket.key] = max(self._full_at.get(bucket.key, now), now) + 1 / bucket.rate
        return 0.0

    def give_back(self, buckets: Sequence[Bucket]) -> None:
        """What was taken last has not been used."""
        for bucket in buckets:
            self._full_at[bucket.key] -= 1 / bucket.rate


TAKE = f"""#!lua
-- `Buckets.take` for all processes. KEYS: the buckets; ARGV: rate and burst of each. Answers with milliseconds.
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local wait, full_at = 0, {{}}
for i = 1, #KEYS do
    local rate, burst = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
    full_at[i] = math.max(now, tonumber(redis.call('GET', KEYS[i]) or now))
    wait = math.max(wait, full_at[i] - now - (burst - 1) / rate)
end
if wait > {_TOLERANCE_S} then return math.ceil(wait * 1000) end
for i = 1, #KEYS do
    local full = full_at[i] + 1 / tonumber(ARGV[2 * i - 1])
    redis.call('SET', KEYS[i], string.format('%.6f', full), 'PX', math.ceil((full - now) * 1000))
end
return 0
"""
