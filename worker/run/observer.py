"""What one attempt shows of itself to whoever watches over the system: figures, and never content."""

import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

from common.model.messages import Usage
from common.model.run_state import Outcome
from common.observability.metrics import OTHER
from common.store.run_transitions import RunSpec
from worker.metrics import FIRST_TOKEN, MODEL_CALLS, PICKUP, TOOL_SECONDS, model_figures

_QUEUED, _CLAIMED, _PROVIDER, _ALL = (FIRST_TOKEN.labels(part) for part in ("queued", "claimed", "provider", "all"))


class ToolCallSeen:
    """A call that is under way; its outcome is known at its end."""

    outcome: Outcome | None = None


class Observer:
    """Told by the journal what the model does, and by the runner what tools do.

    `offered` are the models that each provider lists: a user may name others, which share one label. `claimed_at` is
    monotonic.
    """

    def __init__(self, spec: RunSpec, claimed_at: float, offered: Mapping[str, Collection[str]]) -> None:
        self._provider = spec.provider if spec.provider in offered else OTHER
        self._model = spec.model if spec.model in offered.get(spec.provider, ()) else OTHER
        self._queued_s = spec.pickup_s
        self._claimed_at = claimed_at
        self._figures = model_figures(self._provider, self._model)
        self._asked_at: float | None = None
        self._first_asked_at: float | None = None
        self._awaits_first_token = spec.step_count == 0
        PICKUP.observe(self._queued_s)

    def model_asked(self) -> None:
        """A request to the provider is made now."""
        self._asked_at = time.monotonic()
        if self._first_asked_at is None:
            self._first_asked_at = self._asked_at

    def model_answered(self, outcome: str, usage: Usage, first_token_age_s: float | None) -> None:
        """The request is over: `completed`, `cancelled`, or the kind of its failure. Nothing if none was made."""
        if self._asked_at is None:
            return
        MODEL_CALLS.labels(self._provider, self._model, outcome).inc()
        self._figures.add(usage)
        if first_token_age_s is not None:
            first_token_at = time.monotonic() - first_token_age_s
            self._figures.first_token.observe(first_token_at - self._asked_at)
            self._first_token_came(first_token_at)
        self._asked_at = None

    @contextmanager
    def tool_call(self, name: str) -> Iterator[ToolCallSeen]:
        """Around a call of a tool that this worker has. Who leaves it without an outcome was cancelled."""
        seen = ToolCallSeen()
        began = time.monotonic()
        try:
            yield seen
        finally:
            outcome = seen.outcome or Outcome.CANCELLED
            TOOL_SECONDS.labels(name, outcome).observe(time.monotonic() - began)

    def _first_token_came(self, at: float) -> None:
        if not self._awaits_first_token or self._first_asked_at is None:
            return
        self._awaits_first_token = False
        _QUEUED.observe(self._queued_s)
        _CLAIMED.observe(self._first_asked_at - self._claimed_at)
        _PROVIDER.observe(at - self._first_asked_at)
        _ALL.observe(self._queued_s + at - self._claimed_at)
