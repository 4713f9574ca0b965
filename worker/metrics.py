"""What a worker counts, beside what `common/observability/metrics.py` has for both sides."""

from functools import cache
from typing import NamedTuple

from prometheus_client import Counter, Histogram

from common.model.messages import Usage
from common.observability.metrics import PROCESS

_WAITS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_TOOLS_S = (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)

PICKUP = Histogram(
    "throughline_pickup_seconds",
    "From the moment in which a run was due (posted, promoted, handed back) to its claim",
    buckets=_WAITS_S,
    registry=PROCESS,
)
FIRST_TOKEN = Histogram(
    "throughline_first_token_seconds",
    "To a run's first token: `queued` until its claim, `claimed` until the first request to its provider, `provider` "
    "until the token, retries included, and `all` of it",
    ("part",),
    buckets=_WAITS_S,
    registry=PROCESS,
)
EVENTS = Counter("throughline_events_appended_total", "Events appended to the logs of runs", registry=PROCESS)
LEASES_LOST = Counter(
    "throughline_leases_lost_total",
    "Runs that this worker had in hand and lost to another",
    registry=PROCESS,
)
SUSPENSIONS = Counter(
    "throughline_lease_suspensions_total", "Runs suspended since their lease was not renewed in time", registry=PROCESS
)
LEASES_EXPIRED = Counter(
    "throughline_leases_expired_total",
    "Runs of dead workers found by this one's sweeps",
    ("verdict",),
    registry=PROCESS,
)
SWEEPS = Counter("throughline_sweeps_total", "Looks for expired leases", ("outcome",), registry=PROCESS)
TOOL_SECONDS = Histogram(
    "throughline_tool_seconds", "Tool calls", ("tool", "outcome"), buckets=_TOOLS_S, registry=PROCESS
)
MODEL_CALLS = Counter(
    "throughline_model_calls_total",
    "Requests to providers; `outcome` is `completed`, `cancelled` or the kind of failure",
    ("provider", "model", "outcome"),
    registry=PROCESS,
)
MODEL_FIRST_TOKEN = Histogram(
    "throughline_model_first_token_seconds",
    "From a request to its provider to the first token of its answer",
    ("provider", "model"),
    buckets=_WAITS_S,
    registry=PROCESS,
)
TOKENS = Counter(
    "throughline_tokens_total",
    "Tokens; `cached_input` and `cache_write` are part of `input`, `reasoning` of `output`",
    ("provider", "model", "kind"),
    registry=PROCESS,
)


class ModelFigures(NamedTuple):
    """One model's tokens and latency, their labels looked up once."""

    first_token: Histogram
    input: Counter
    output: Counter
    cached_input: Counter
    cache_write: Counter
    reasoning: Counter

    def add(self, usage: Usage) -> None:
        """Counts what a request has used."""
        self.input.inc(usage.input_tokens)
        self.output.inc(usage.output_tokens)
        self.cached_input.inc(usage.cached_input_tokens)
        self.cache_write.inc(usage.cache_write_tokens)
        self.reasoning.inc(usage.reasoning_tokens)


@cache
def model_figures(provider: str, model: str) -> ModelFigures:
    """The figures of a model; `model` is one that is offered, or OTHER."""
    kinds = ModelFigures._fields[1:]
    return ModelFigures(
        MODEL_FIRST_TOKEN.labels(provider, model), *(TOKENS.labels(provider, model, kind) for kind in kinds)
    )
