"""What one attempt shows of itself to whoever watches over the system: figures and spans, and never content."""

import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from common.model.messages import Usage
from common.model.run_state import Outcome
from common.observability.metrics import OTHER
from common.observability.tracing import begin_span, note_failure, span
from common.settle import CancelledBy, Completed, Failed, RunOutcome
from common.store.run_transitions import RunSpec
from worker.metrics import FIRST_TOKEN, MODEL_CALLS, PICKUP, TOOL_SECONDS, model_figures

if TYPE_CHECKING:
    from opentelemetry.trace import Span

_QUEUED, _CLAIMED, _PROVIDER, _ALL = (FIRST_TOKEN.labels(part) for part in ("queued", "claimed", "provider", "all"))
_STATES = {Completed: "completed", Failed: "failed", CancelledBy: "cancelled", type(None): "handed_back"}


class ToolCallSeen:
    """A call that is under way; its outcome is known at its end."""

    outcome: Outcome | None = None


class Observer:
    """Told by the journal what the model does, and by the runner what tools do.

    `offered` are the models that each provider lists: a user may name others, which share one label. `claimed_at` is
    monotonic.
    """

    def __init__(self, spec: RunSpec, claimed_at: float, offered: Mapping[str, Collection[str]]) -> None:
        self._spec = spec
        self._provider = spec.provider if spec.provider in offered else OTHER
        self._model = spec.model if spec.model in offered.get(spec.provider, ()) else OTHER
        self._queued_s = spec.pickup_s
        self._claimed_at = claimed_at
        self._figures = model_figures(self._provider, self._model)
        self._asked_at: float | None = None
        self._first_asked_at: float | None = None
        self._awaits_first_token = spec.step_count == 0
        self._attempt: Span | None = None
        self._model_call: Span | None = None
        PICKUP.observe(self._queued_s)

    @contextmanager
    def attempt(self, number: int) -> Iterator[None]:
        """Around the whole attempt: its span goes on with the trace of the request that began the run."""
        spec = self._spec
        attributes = {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.conversation.id": str(spec.conversation_id),
            **self._model_attributes,
            "throughline.workspace.id": str(spec.workspace_id),
            "throughline.run.id": str(spec.id),
            "throughline.run.attempt": number,
            "throughline.run.queued_s": self._queued_s,
        }
        if spec.agent_id is not None:
            attributes["gen_ai.agent.id"] = str(spec.agent_id)
        with span("invoke_agent", attributes, kind="consumer", traceparent=spec.traceparent) as self._attempt:
            try:
                yield
            finally:
                if self._model_call is not None:  # nobody came to say how it ended: the run was lost
                    note_failure(self._model_call, "lost")
                    self._model_call.end()

    def ends(self, outcome: RunOutcome | None) -> None:
        """How the attempt ends; None when the run is handed back."""
        if self._attempt is not None:
            self._attempt.set_attribute("throughline.run.state", _STATES[type(outcome)])
            if isinstance(outcome, Failed):
                note_failure(self._attempt, outcome.code)

    @property
    def _model_attributes(self) -> dict[str, str | int | float]:
        return {"gen_ai.provider.name": self._spec.provider, "gen_ai.request.model": self._spec.model}

    def model_asked(self, step: int) -> None:
        """A request to the provider is made now."""
        attributes = {"gen_ai.operation.name": "chat", **self._model_attributes, "throughline.run.step": step}
        self._model_call = begin_span(f"chat {self._spec.model}", attributes, kind="client")
        self._asked_at = time.monotonic()
        if self._first_asked_at is None:
            self._first_asked_at = self._asked_at

    def model_answered(self, outcome: str, usage: Usage, first_token_age_s: float | None) -> None:
        """The request is over: `completed`, `cancelled`, or the kind of its failure. Nothing if none was made."""
        if self._asked_at is None:
            return
        MODEL_CALLS.labels(self._provider, self._model, outcome).inc()
        self._figures.add(usage)
        first_token_s = None
        if first_token_age_s is not None:
            first_token_at = time.monotonic() - first_token_age_s
            first_token_s = first_token_at - self._asked_at
            self._figures.first_token.observe(first_token_s)
            self._first_token_came(first_token_at)
        self._asked_at = None
        self._end_model_call(outcome, usage, first_token_s)

    @contextmanager
    def tool_call(self, name: str, call_id: str) -> Iterator[ToolCallSeen]:
        """Around a call of a tool that this worker has. Who leaves it without an outcome was cancelled."""
        seen = ToolCallSeen()
        attributes = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": name,
            "gen_ai.tool.type": "function",
            "gen_ai.tool.call.id": call_id,
        }
        began = time.monotonic()
        with span(f"execute_tool {name}", attributes) as current:
            try:
                yield seen
            finally:
                outcome = seen.outcome or Outcome.CANCELLED
                TOOL_SECONDS.labels(name, outcome).observe(time.monotonic() - began)
                if outcome is not Outcome.OK:
                    note_failure(current, outcome)

    def _end_model_call(self, outcome: str, usage: Usage, first_token_s: float | None) -> None:
        current, self._model_call = self._model_call, None
        if current is None:
            return
        current.set_attributes(
            {
                "gen_ai.usage.input_tokens": usage.input_tokens,
                "gen_ai.usage.output_tokens": usage.output_tokens,
                "gen_ai.usage.cache_read.input_tokens": usage.cached_input_tokens,
                "gen_ai.usage.cache_creation.input_tokens": usage.cache_write_tokens,
                "gen_ai.usage.reasoning.output_tokens": usage.reasoning_tokens,
            }
        )
        if first_token_s is not None:
            current.set_attribute("gen_ai.response.time_to_first_chunk", first_token_s)
        if outcome != "completed":
            note_failure(current, outcome)
        current.end()

    def _first_token_came(self, at: float) -> None:
        if not self._awaits_first_token or self._first_asked_at is None:
            return
        self._awaits_first_token = False
        _QUEUED.observe(self._queued_s)
        _CLAIMED.observe(self._first_asked_at - self._claimed_at)
        _PROVIDER.observe(at - self._first_asked_at)
        _ALL.observe(self._queued_s + at - self._claimed_at)
