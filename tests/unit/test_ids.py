"""Identifiers: UUIDv7 for rows, cursors for events."""

import re
import time
from uuid import UUID

import pytest

from common.ids import Cursor, EventId, new_id, new_tool_call_id, parse_cursor

RUN_ID = UUID("01890a5d-ac96-774b-bcce-b302099a8057")


def test_new_id_carries_version_variant_and_milliseconds() -> None:
    """An id is a valid UUIDv7 whose first 48 bits are the millisecond of its birth."""
    before = time.time_ns() // 1_000_000
    made = new_id()
    after = time.time_ns() // 1_000_000
    assert made.version == 7
    assert made.variant == "specified in RFC 4122"
    assert before <= made.int >> 80 <= after


def test_new_id_many_at_once_are_distinct() -> None:
    """Ids of the same millisecond differ."""
    assert len({new_id() for _ in range(10_000)}) == 10_000


def test_new_tool_call_id_fits_every_provider() -> None:
    """A call's id has only characters, and no more of them, than every provider accepts."""
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,40}", new_tool_call_id())


def test_event_id_is_compared_as_a_pair_of_numbers() -> None:
    """A greater attempt wins over any n, and numbers are not compared as text."""
    assert EventId(2, 1) > EventId(1, 999)
    assert EventId(1, 10) > EventId(1, 9)
    assert str(EventId(3, 14)) == "3-14"


@pytest.mark.parametrize(
    ("text", "cursor"),
    [
        ("7-42", Cursor(None, EventId(7, 42))),
        (f"{RUN_ID}:7-42", Cursor(RUN_ID, EventId(7, 42))),
        (f"{str(RUN_ID).upper()}:0-0", Cursor(RUN_ID, EventId(0, 0))),
        ("999999999999999-999999999999999", Cursor(None, EventId(999999999999999, 999999999999999))),
    ],
)
def test_parse_cursor_reads_both_forms(text: str, cursor: Cursor) -> None:
    """A cursor names an event, and its run where the client knew it."""
    assert parse_cursor(text) == cursor


@pytest.mark.parametrize(
    "text",
    [
        *("", "7", "7-", "-42", "7-42-1", "7_42", "a-b", "-1-2", " 7-42", "7-42\n", "+7-42", "0x7-1", "1e3-1"),
        *("٧-٤٢", "1234567890123456-1", "x:7-42", ":7-42"),
        *(f"{RUN_ID}", f"{RUN_ID}:", f"{RUN_ID}7-42", f"{RUN_ID.hex}:7-42"),
    ],
)
def test_parse_cursor_refuses_anything_else(text: str) -> None:
    """What is not exactly a cursor is none: no sign, no space, no other digits, no number too large to count."""
    assert parse_cursor(text) is None
