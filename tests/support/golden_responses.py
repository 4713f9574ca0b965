"""Runs as events, and the stream of OpenAI's Responses that each must become: `<case>.events` and `<case>.sse`."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from api.protocols import PROTOCOLS
from api.protocols.fold import EventData, Place
from common.ids import parse_cursor
from common.model.messages import Run, Timings, Usage
from common.model.run_state import Priority, RunState

FOLDER = Path(__file__).parents[1] / "unit" / "golden" / "responses"
CASES = sorted(path.stem for path in FOLDER.glob("*.events"))
RUN = UUID("0198f3a0-0000-7000-8000-000000000001")
CONVERSATION = UUID("0198f3a0-0000-7000-8000-000000000002")


def events_of(case: str) -> list[EventData]:
    """Each line is an event's id, or `-`, and its JSON."""
    events: list[EventData] = []
    for line in (FOLDER / f"{case}.events").read_text().splitlines():
        event_id, _, data = line.partition(" ")
        cursor = parse_cursor(event_id)
        events.append((None if cursor is None else cursor.event_id, data.encode()))
    return events


def golden_of(case: str) -> bytes:
    """The frames."""
    return (FOLDER / f"{case}.sse").read_bytes()


def fold(events: Sequence[EventData], after: int | None = None) -> bytes:
    """The frames that follow the number `after`."""
    return PROTOCOLS["responses"](place(after)).encode(events)


def place(after: int | None = None) -> Place:
    """Where a client stands that has seen the number `after`."""
    return Place(RUN, True, None, after, run_row())


def run_row(state: RunState = RunState.QUEUED, **fields: Any) -> Run:
    """The run as its row is."""
    return Run(
        id=RUN,
        conversation_id=CONVERSATION,
        trigger_message_id=RUN,
        provider="echo",
        model="echo",
        state=state,
        priority=Priority.INTERACTIVE,
        attempt=1,
        step_count=0,
        timings=Timings(),
        created_by="a-user",
        created_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        **{"usage": Usage(), **fields},
    )


if __name__ == "__main__":  # Writes the frames anew, to be looked at before they are kept.
    for name in CASES:
        (FOLDER / f"{name}.sse").write_bytes(fold(events_of(name)))
