"""Events that travel together: parsed once, encoded once, shared by every client of their run."""

from collections.abc import Sequence
from typing import Protocol

from common.eventlog.log import LogEvent
from common.ids import EventId
from common.model.events import is_terminal


class Encoder(Protocol):
    """Turns a run's events into the bytes of one client's frames; `api.protocols` has those that exist.

    Encoders with the same `shared` name give the same bytes for the same events, so those are made once for
    all of a run's clients; None when the bytes depend on what the client was told before.
    """

    @property
    def shared(self) -> str | None: ...

    def encode(self, events: Sequence[tuple[EventId | None, bytes]]) -> bytes: ...


class Batch:
    """Neighbouring events of one run, in order. Only the last of them can end the run."""

    __slots__ = ("_frames", "ends_run", "events")

    def __init__(self, events: Sequence[LogEvent]) -> None:
        self.events = events
        self.ends_run = is_terminal(events[-1].data)
        self._frames: dict[str, bytes] | None = None

    def frames(self, encoder: Encoder) -> bytes:
        """The batch as `encoder` writes it."""
        shared = encoder.shared
        if shared is None:
            return encoder.encode(self.events)
        if self._frames is None:
            self._frames = {}
        frames = self._frames.get(shared)
        if frames is None:
            frames = self._frames[shared] = encoder.encode(self.events)
        return frames
