"""What the load generator of operations is asked, and what it answers."""

import msgspec

from bench.spec import Quantiles, Target


class Turnover(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """`at_once` clients begin a run each, as soon as their last one has ended, until `window_s` is over.

    Each run is the next one of some conversation: there are `conversations`, so that none grows long.
    """

    target: Target
    model: str
    at_once: int
    conversations: int
    window_s: float
    drain_s: float = 10.0


class Holding(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Begins `runs` runs, then opens `streams` streams on them in turn.

    It prints `began` and waits for a line of standard input before the streams; prints `held` and waits for another
    before it cancels the runs, at which every stream must end.
    """

    target: Target
    model: str
    runs: int
    streams: int
    patience_s: float = 120.0


class Resuming(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Follows one run to its end, then reads it again from its first event on, `times` times."""

    target: Target
    model: str
    times: int
    patience_s: float = 60.0


Request = Turnover | Holding | Resuming


class TurnoverResult(msgspec.Struct, kw_only=True):
    """`ended` is how many runs were read to their end within the window; `took` is from POST to end."""

    ended: int
    seconds: float
    took: Quantiles
    gaps: int
    failures: list[str]


class HoldingResult(msgspec.Struct, kw_only=True):
    """`ended` streams got the end of their run."""

    ended: int
    failures: list[str]


class ResumingResult(msgspec.Struct, kw_only=True):
    """Milliseconds from the request to the first event, and to the last."""

    events: int
    first: Quantiles
    whole: Quantiles
    gaps: int
    failures: list[str]
