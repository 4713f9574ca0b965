"""The words of a run's life: states, ends, effects, outcomes."""

from enum import StrEnum


class RunState(StrEnum):
    """`waiting → queued → running → completed | failed | cancelled`; `paused` is reserved: no run is
    in it yet."""

    WAITING = "waiting"
    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        return self in TERMINAL_STATES


TERMINAL_STATES = frozenset({RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED})


class Priority(StrEnum):
    """Which runs workers take first: somebody waits for an `interactive` one, nobody for a `background` one."""

    INTERACTIVE = "interactive"
    BACKGROUND = "background"

    @property
    def number(self) -> int:
        """As the database has it: the lower, the sooner."""
        return _PRIORITIES.index(self)

    @classmethod
    def of(cls, number: int) -> "Priority":
        """The one with this number."""
        return _PRIORITIES[number]


_PRIORITIES = (Priority.INTERACTIVE, Priority.BACKGROUND)


class RunErrorCode(StrEnum):
    """Why a run is `failed`."""

    PROVIDER_ERROR = "provider_error"
    PROVIDER_REJECTED = "provider_rejected"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    CRASH_LOOP = "crash_loop"
    BUDGET_EXCEEDED = "budget_exceeded"
    INTERNAL = "internal"


class FinishReason(StrEnum):
    """Why a run is `completed`."""

    STOP = "stop"
    LENGTH = "length"
    CONTENT_FILTER = "content_filter"
    STEP_LIMIT = "step_limit"
    OTHER = "other"


class CancelReason(StrEnum):
    """Who or what cancelled a run."""

    USER = "user"
    INTERRUPTED = "interrupted"
    SUPERSEDED = "superseded"
    CONVERSATION_DELETED = "conversation_deleted"


class Effect(StrEnum):
    """What a crash in mid-call allows: `read` and `idempotent` run again, `at_most_once` (the default) never does.
    `transactional` happens in the transaction of its result: exactly once."""

    READ = "read"
    IDEMPOTENT = "idempotent"
    TRANSACTIONAL = "transactional"
    AT_MOST_ONCE = "at_most_once"


class Outcome(StrEnum):
    """How a tool call came out; `unknown` when nobody can tell whether its effect happened."""

    OK = "ok"
    ERROR = "error"
    UNKNOWN = "unknown"
    CANCELLED = "cancelled"
