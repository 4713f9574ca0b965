"""What crosses from process to process is understood by the version before, and what that one wrote is understood."""

import base64
import json
from typing import Any, Literal
from uuid import UUID

import msgspec
import pytest
from arq.jobs import deserialize_job

from api.pagination import ListCursor, NewestFirst
from common.documents.awareness import read_present
from common.documents.channel import parse
from common.eventlog.signals import _parse as parse_cancel
from common.ids import parse_cursor
from common.model.events import decode_event
from common.model.run_state import RunErrorCode
from common.queue import JOB, deserialize
from tests.frozen import NEWEST
from tests.frozen.samples import DONE, ID, NOTES, OTHER, POSITION, PRESENT, STARTED, read_samples, samples
from tests.frozen.shapes import WIRE, differences, shape, shapes

_WROTE = read_samples(NEWEST)
_SHAPES: dict[str, Any] = json.loads((NEWEST / "shapes.json").read_text("utf-8"))


async def test_today_writes_what_the_version_before_wrote() -> None:
    """Keys, channels, jobs, signals, cursors, derived ids and hashes of requests: byte for byte.

    Where this fails, the version before does not understand today's, or a client's cursor, key or chat is lost.
    """
    assert await samples() == _WROTE


@pytest.mark.parametrize("name", WIRE)
def test_shape_is_understood_both_ways(name: str) -> None:
    """Fields may be added that can be left out; no event, field or word that the version before would refuse.

    A new word (an event, an error's code, an effect) is read by one release and written by the next.
    """
    assert differences(_SHAPES[name], shapes()[name]) == []


def test_job_of_the_version_before_is_answered() -> None:
    """A worker of today takes a run that an API of yesterday rang for."""
    job = deserialize_job(_WROTE["job"], deserializer=deserialize)
    assert (job.function, list(job.args), job.kwargs) == (JOB, [str(ID)], {})


def test_events_of_the_version_before_are_read() -> None:
    """An API of today tells what a worker of yesterday has logged."""
    assert [decode_event(_WROTE[name]) for name in ("started", "done")] == [STARTED, DONE]


def test_signals_of_the_version_before_are_heard() -> None:
    """Cancels, and everything that rooms tell each other."""
    cancel, *notes = (base64.b64decode(line).partition(b" ")[2] for line in _WROTE["told"].split())
    assert parse_cancel(cancel) == ID
    assert list(map(parse, notes)) == NOTES
    assert [read_present(NOTES[place].payload) for place in (1, 3)] == [PRESENT, PRESENT]


def test_cursors_of_the_version_before_go_on() -> None:
    """A client that has read half of a list or a stream reads the rest of it after the upgrade."""
    assert ListCursor("runs", ID, OTHER, None).read(_WROTE["list cursor"].decode(), NewestFirst) == POSITION
    assert parse_cursor(_WROTE["event id"].decode()) == parse_cursor("2-7")


class _Before(msgspec.Struct):
    code: RunErrorCode
    kind: Literal["a", "b"]
    note: str = ""


class _More(msgspec.Struct):
    code: RunErrorCode
    kind: Literal["a", "b"]
    note: str = ""
    id: UUID | None = None


class _Strict(msgspec.Struct, forbid_unknown_fields=True):
    a: int = 0


class _StrictAndMore(msgspec.Struct, forbid_unknown_fields=True):
    a: int = 0
    b: int = 0


def test_shape_with_a_field_that_may_be_absent_is_the_same() -> None:
    """That is how shapes grow."""
    assert differences(shape(_Before), _renamed(shape(_More))) == []


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ([("code", RunErrorCode), ("kind", Literal["a", "b", "c"]), ("note", str, "")], "enum"),
        ([("code", RunErrorCode), ("kind", Literal["a"]), ("note", str, "")], "enum"),
        ([("code", str), ("kind", Literal["a", "b"]), ("note", str, "")], "properties/code"),
        ([("code", RunErrorCode), ("kind", Literal["a", "b"])], "properties/note"),
        ([("code", RunErrorCode), ("kind", Literal["a", "b"]), ("note", str)], "required"),
        ([("more", int), ("code", RunErrorCode), ("kind", Literal["a", "b"]), ("note", str, "")], "required"),
    ],
    ids=["new word", "lost word", "other type", "lost field", "field needed", "new field needed"],
)
def test_shape_that_the_other_side_cannot_read_differs(fields: list[tuple[Any, ...]], problem: str) -> None:
    """Each of these breaks a process of the other version."""
    after = msgspec.defstruct("_Before", fields, kw_only=True)
    assert any(problem in line for line in differences(shape(_Before), shape(after)))


def test_shape_that_refuses_what_it_does_not_know_cannot_grow() -> None:
    """There a new field is an error of the old version."""
    [problem] = differences(shape(_Strict), _renamed(shape(_StrictAndMore)))
    assert "more fields" in problem


def _renamed(parts: dict[str, Any]) -> dict[str, Any]:
    """As if the second type had the first one's name."""
    before = {"_More": "_Before", "_StrictAndMore": "_Strict"}
    named = {before.get(name, name): part for name, part in parts.items()}
    root = parts["root"]["$ref"]
    return {**named, "root": {"$ref": before.get(root, root)}}
