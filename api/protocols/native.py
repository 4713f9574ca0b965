"""The native stream: an event's JSON is the frame's data, byte for byte."""

from collections.abc import Mapping, Sequence

from api.protocols.fold import EventData, Place


class Native:
    """`id: <attempt>-<n>`, or `<runId>:<attempt>-<n>` where the URL does not name the run, and the JSON
    untouched.
    """

    headers: Mapping[str, str] = {}
    replays = False

    def __init__(self, place: Place) -> None:
        self._prefix = b"" if place.named_run else b"%s:" % str(place.run_id).encode()
        self.shared: str | None = "native" if place.named_run else "native with run"

    def encode(self, events: Sequence[EventData]) -> bytes:
        """One unnamed frame per event; without an `id:` line where the event has no id."""
        prefix, frames = self._prefix, []
        for event_id, data in events:
            if event_id is None:
                frames.append(b"data: %b\n\n" % data)
            else:
                frames.append(b"id: %b%d-%d\ndata: %b\n\n" % (prefix, *event_id, data))
        return b"".join(frames)
