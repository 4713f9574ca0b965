"""Identifiers: UUIDv7 for rows, `<attempt>-<n>` for events."""

import os
import re
import time
from typing import NamedTuple
from uuid import UUID

_CURSOR = re.compile(r"(?:([0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}):)?(\d{1,15})-(\d{1,15})", re.ASCII)


def new_id() -> UUID:
    """A UUIDv7 (RFC 9562): sorts by its millisecond of birth; made here since Postgres has it only from 18 on."""
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds << 80) | (0x7 << 76) | (int.from_bytes(os.urandom(10)) & ((1 << 76) - 1))
    return UUID(int=value & ~(0x3 << 62) | (0x2 << 62))


def new_tool_call_id() -> str:
    """An id that every provider accepts in a history (`[A-Za-z0-9_-]`, at most 40 characters)."""
    return f"call_{new_id().hex}"


class EventId(NamedTuple):
    """Compared as a pair; `n` counts from 1 within an attempt without a hole."""

    attempt: int
    n: int

    def __str__(self) -> str:
        return f"{self.attempt}-{self.n}"


class Cursor(NamedTuple):
    """What a client has seen: the event, and the run where the client named it."""

    run_id: UUID | None
    event_id: EventId


def parse_cursor(text: str) -> Cursor | None:
    """Reads `[<runId>:]<attempt>-<n>`; None when it is anything else."""
    match = _CURSOR.fullmatch(text)
    if match is None:
        return None
    run_id, attempt, n = match.groups()
    return Cursor(UUID(run_id) if run_id else None, EventId(int(attempt), int(n)))
