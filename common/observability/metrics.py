"""Figures for Prometheus: the process's own registry, and what API and workers both count in it.

What is counted deep in the code belongs to the process, as its log does. What is read from an object when somebody asks
belongs to whoever answers: see `common/scrape.py`.
"""

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics

disable_created_metrics()  # type: ignore[no-untyped-call]  # When a series began is a series of its own, and nobody asks.

PROCESS = CollectorRegistry()
"""All that this process has counted."""

OTHER = "other"
"""The label of whatever users may name as they like: each name would be a series of its own, for ever."""

RUNS_ENDED = Counter(
    "throughline_runs_ended_total",
    "Runs ended by this process, whether it owned them, swept them or was asked to; `code` is why one failed",
    ("state", "code"),
    registry=PROCESS,
)
REDIS_CONNECTS = Counter(
    "throughline_redis_connects_total", "Connections opened to Redis, or not", ("outcome",), registry=PROCESS
)
LOOP_LAG = Histogram(
    "throughline_event_loop_lag_seconds",
    "How much later than it was due the event loop has run a timer",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
    registry=PROCESS,
)
