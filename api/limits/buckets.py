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
        waits = [self._read(b, now) - now - (b.burst - 1) / b.rate for b in buckets]
        wait = max(waits, default=0.0)
        if wait > _TOLERANCE_S:
            return wait
        if len(self._full_at) > _MOST_KEPT:
            self._full_at = {key: full_at for key, full_at in self._full_at.items() if full_at > now}
        for bucket in buckets:
            self._full_at[bucket.key] = self._read(bucket, now) + 1 / bucket.rate
        return 0.0

    def give_back(self, buckets: Sequence[Bucket]) -> None:
        """What was taken last has not been used."""
        for bucket in buckets:
            if bucket.key in self._full_at:
                self._full_at[bucket.key] -= 1 / bucket.rate

    def _read(self, bucket: Bucket, now: float) -> float:
        """When it is full: one that was emptied under other limits is no emptier than these let it be."""
        full_at, latest = self._full_at.get(bucket.key, now), now + bucket.burst / bucket.rate
        if full_at > latest:
            self._full_at[bucket.key] = full_at = latest
        return max(full_at, now)


TAKE = f"""#!lua
-- `Buckets.take` for all processes. KEYS: the buckets; ARGV: rate and burst of each. Answers with milliseconds.
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local wait, full_at = 0, {{}}
local function keep(i, full)
    redis.call('SET', KEYS[i], string.format('%.6f', full), 'PX', math.max(1, math.ceil((full - now) * 1000)))
end
for i = 1, #KEYS do
    local rate, burst = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
    local latest = now + burst / rate
    full_at[i] = math.max(now, tonumber(redis.call('GET', KEYS[i]) or now))
    if full_at[i] > latest then
        full_at[i] = latest
        keep(i, latest)
    end
    wait = math.max(wait, full_at[i] - now - (burst - 1) / rate)
end
if wait > {_TOLERANCE_S} then return math.ceil(wait * 1000) end
for i = 1, #KEYS do
    keep(i, full_at[i] + 1 / tonumber(ARGV[2 * i - 1]))
end
return 0
"""
