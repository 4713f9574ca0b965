"""The native protocol: ids in two forms, JSON untouched."""

from uuid import UUID

import pytest

from api.protocols import PROTOCOLS
from api.protocols.fold import Place
from common.ids import EventId, parse_cursor

RUN = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
EVENTS = [(None, b'{"type":"started"}'), (EventId(3, 17), '{"type":"token","content":"né"}'.encode())]


def test_native_where_the_url_names_the_run() -> None:
    """The id is the event's alone; an event without an id has no id line."""
    frames = PROTOCOLS["native"](Place(RUN, True, None)).encode(EVENTS)
    assert frames == (b'data: {"type":"started"}\n\nid: 3-17\ndata: {"type":"token","content":"n\xc3\xa9"}\n\n')


def test_native_where_the_url_does_not_name_the_run() -> None:
    """The id says which run it is of, in the form that is read back as a cursor."""
    frames = PROTOCOLS["native"](Place(RUN, False, None)).encode(EVENTS)
    id_line = frames.split(b"\n\n")[1].split(b"\n")[0].decode()
    assert id_line == f"id: {RUN}:3-17"
    assert parse_cursor(id_line.removeprefix("id: ")) == (RUN, EventId(3, 17))


@pytest.mark.parametrize("named_run", [True, False])
def test_native_shares_its_frames_only_with_its_like(named_run: bool) -> None:
    """Two folds with one name give the same bytes; the two forms of ids have two names."""
    fold, twin, other = (
        PROTOCOLS["native"](Place(RUN, form, cursor))
        for form, cursor in ((named_run, None), (named_run, EventId(1, 1)), (not named_run, None))
    )
    assert fold.shared == twin.shared
    assert fold.shared is not None
    assert fold.encode(EVENTS) == twin.encode(EVENTS)
    assert fold.shared != other.shared
    assert fold.encode(EVENTS) != other.encode(EVENTS)
