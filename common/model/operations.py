"""What an operator sees of the whole system, on the wire: ids, numbers and codes, never content."""

from typing import Annotated, Literal
from uuid import UUID

from msgspec import Meta

from common.model.messages import Time, Wire
from common.model.run_state import Priority, RunErrorCode, RunState


class WorkerReport(Wire, kw_only=True):
    """A worker, as it said of itself last. `silent`: nothing was heard of it for 10 s; after 10 minutes it is gone."""

    owner: Annotated[str, Meta(description="Host, process and a random part; no other worker ever has it.")]
    state: Literal["working", "draining", "silent"]
    version: str
    started_at: Time
    seen_at: Time
    running: Annotated[int, Meta(description="Runs that it has in hand.")]
    places: Annotated[int, Meta(description="How many it takes at once.")]
    priorities: Annotated[list[Priority], Meta(description="Whose runs it takes.")]
    runs_ended: Annotated[int, Meta(description="By this process, since its start.")]
    output_tokens: Annotated[int, Meta(description="Since its start, of model calls that have ended.")]


class Queue(Wire, kw_only=True):
    """The runs of one priority that have not ended."""

    priority: Priority
    queued: int
    due: Annotated[int, Meta(description="Of the queued ones: may be claimed now.")]
    held: Annotated[
        int, Meta(description="Of the queued ones: not while their workspace has as many running as it may.")
    ]
    oldest_due_s: Annotated[float | None, Meta(description="For how long the oldest due one might have been.")]
    running: int
    waiting: Annotated[int, Meta(description="For another run of their conversation.")]


class Latency(Wire, kw_only=True):
    """Milliseconds; null without a sample."""

    samples: int = 0
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None


class Minute(Wire, kw_only=True):
    """What happened in the minute up to `at`."""

    at: Time
    completed: int
    failed: int
    cancelled: int
    pickup_p50_ms: float | None = None
    pickup_p95_ms: float | None = None
    first_token_p50_ms: float | None = None
    first_token_p95_ms: float | None = None


class PastMinute(Minute, kw_only=True):
    """One of the last hour's minutes."""

    output_tokens: Annotated[int, Meta(description="Of model calls that ended.")]


class EndedRuns(Wire, kw_only=True):
    """How many ended in this way; `code` is there for failed ones."""

    state: RunState
    code: RunErrorCode | None = None
    runs: int


class OperationsSummary(Wire, kw_only=True):
    """All workspaces together, at most a second ago. Latencies are of the last five minutes."""

    at: Time
    queues: Annotated[list[Queue], Meta(description="One for each priority, the most urgent first.")]
    pickup: Annotated[Latency, Meta(description="From due to claimed by a worker.")]
    first_token: Annotated[Latency, Meta(description="From the message to the first token of its answer.")]
    last_minute: Minute
    ended: Annotated[list[EndedRuns], Meta(description="In the last hour, most first.")]
    workers: list[WorkerReport]


class Requeue(Wire, kw_only=True):
    """That an operator started a failed run again."""

    run_id: UUID
    new_run_id: Annotated[UUID, Meta(description="A new run of the same turn, with the failed one's settings.")]
    requeued_by: str
    requeued_at: Time


class FailedRun(Wire, kw_only=True):
    """A run that failed. The message of its error is its workspace's alone."""

    workspace_id: UUID
    run_id: UUID
    conversation_id: UUID
    agent_id: UUID | None = None
    code: RunErrorCode
    attempts: Annotated[int, Meta(description="How many times a worker set out on it.")]
    crashes: int
    created_at: Time
    started_at: Time | None = None
    finished_at: Time
    requeueable: Annotated[bool, Meta(description="Not if one of the next three is true, or it was started again.")]
    outdated: Annotated[bool, Meta(description="Its conversation went on without it.")]
    details_removed: Annotated[bool, Meta(description="What it was made of is kept no longer.")]
    conversation_deleted: bool
    requeue: Requeue | None = None


class WorkspaceUse(Wire, kw_only=True):
    """Since the day and the month began, in UTC: runs that have ended, tokens of model calls that have begun."""

    workspace_id: UUID
    runs_today: int
    runs_this_month: int
    input_tokens_today: int
    output_tokens_today: int
    input_tokens_this_month: int
    output_tokens_this_month: int
