"""What every protocol is: a fold over one run's events, from the first that its client needs to the run's
end.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol
from uuid import UUID

from common.ids import EventId
from common.model.messages import Run

EventData = tuple[EventId | None, bytes]
"""An event's id (None: it only repairs what the client has) and its JSON."""


class Place(NamedTuple):
    """Where a client stands: the run, whether its URL names the run, and the last event that it has seen; or the last
    number, where a protocol counts by itself. `run` is for those who say something before the first event.
    """

    run_id: UUID
    named_run: bool
    cursor: EventId | None
    after: int | None = None
    run: Run | None = None


class Fold(Protocol):
    """One client's state. Made anew for each connection; it stores nothing."""

    headers: Mapping[str, str]
    """What the response says besides the headers of every stream."""

    replays: bool
    """Whether the fold must see the run's events from the stream's first one, and skips by itself what the client
    has; else it begins after the client's cursor. The former get every `started` with its messages, however large."""

    shared: str | None
    """Names folds that give the same bytes for the same events of a run, so that they are made once for all of its
    clients; None for a fold that remembers."""

    def encode(self, events: Sequence[EventData]) -> bytes:
        """The frames for the next events; empty when there are none. Called once without events, before the first."""
