"""What the live channel of a run carries: one publication per batch."""

from typing import NamedTuple

MAX_BATCH_BYTES = 256 * 1024
"""The events of a batch, each with a line feed. A larger batch is published by its ids alone."""


class Publication(NamedTuple):
    """Events `<attempt>-<first>` to `<attempt>-<last>`; without `events`, read them from the stream."""

    attempt: int
    first: int
    last: int
    events: tuple[bytes, ...] | None


def parse_publication(data: bytes) -> Publication:
    """Reads `<attempt>-<first>-<last>` and, for each event, a line feed and its JSON.

    Raises ValueError when malformed.
    """
    header, *events = data.split(b"\n")
    attempt, first, last = map(int, header.split(b"-"))
    if events and len(events) != last - first + 1:
        raise ValueError(f"publication {header!r} carries {len(events)} events")
    return Publication(attempt, first, last, tuple(events) or None)
