"""What the load generator is asked, and what it answers. Times are CLOCK_MONOTONIC, which all processes share."""

import msgspec


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Who is asked: Throughline, or the baseline where there is no token."""

    name: str
    port: int
    token: str = ""
    workspace_id: str = ""


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """`runs` streams, begun within `stagger_s`; what arrives in the `window_s` after that (and 1 s) is counted.

    With `one_by_one` a stream begins when the one before has ended, and all of it is counted.
    """

    target: Target
    model: str
    runs: int
    one_by_one: bool = False
    stagger_s: float = 0.0
    window_s: float = 0.0
    drain_s: float = 5.0


class Quantiles(msgspec.Struct, frozen=True):
    """Milliseconds."""

    p50: float
    p99: float


class LoadResult(msgspec.Struct, kw_only=True):
    """`gaps` counts events whose number does not follow the one before; `failures` what else went wrong.

    `latency` is from the model's send of a token to its arrival, `first_event` and `first_token` from the POST;
    where none came, until the end of the measurement.
    """

    tokens: int
    seconds: float
    latency: Quantiles
    first_event: Quantiles
    first_token: Quantiles
    ended: int
    gaps: int
    failures: list[str]


WARM_UP_S = 1.0
"""After the last stream has begun, before anything is counted."""
