"""Every Redis key and channel. The braces keep what belongs to one run in one hash slot."""

from uuid import UUID


def events_key(run_id: UUID) -> str:
    """A stream: one entry per event, its id `<attempt>-<n>`, its field `d` the event's JSON."""
    return f"run:{{{run_id}}}:events"


def head_key(run_id: UUID) -> str:
    """A hash `{attempt, n}`: the newest event that the log accepted. It fences older attempts."""
    return f"run:{{{run_id}}}:head"


def live_channel(run_id: UUID) -> str:
    """One publication per appended batch."""
    return f"run:{{{run_id}}}:live"


def cancel_channel() -> str:
    """One publication, the run's id, per request to cancel a run."""
    return "runs:cancel"
