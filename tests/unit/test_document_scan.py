"""Updates of strangers: what a document cannot hold never reaches the library behind it."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pycrdt import Array, Doc, Map, Text

from common.documents import lib0
from common.documents.edits import Splice, append
from common.documents.kinds import MARKDOWN
from common.documents.lib0 import Malformed, Reader
from common.documents.replica import Replica
from common.documents.update_scan import MAX_CLOCK, Span, read_state, scan_update

_CLIENT = lib0.uint(7)


def _update(*items: bytes, clock: int = 0, deletes: bytes = b"\0") -> bytes:
    return b"\1" + lib0.uint(len(items)) + _CLIENT + lib0.uint(clock) + b"".join(items) + deletes


def _string(text: str, root: str = "content", info: int = 4) -> bytes:
    return bytes([info]) + b"\1" + lib0.text(root) + lib0.text(text)


def _made_by(write: object) -> bytes:
    doc: Doc[Text] = Doc()
    write(doc)  # type: ignore[operator]
    return doc.get_update()


def test_update_says_whose_clocks_it_brings() -> None:
    """A character beyond the basic plane counts twice, as Yjs counts."""
    assert scan_update(_update(_string("a😀"), clock=3), MARKDOWN).spans == {7: Span(3, 6)}
    assert scan_update(b"\0\0", MARKDOWN).is_empty


_HOSTILE = {
    "a collected item": _update(b"\0\1"),
    "formatting": _update(b"\6\1" + lib0.text("content") + lib0.text("bold") + lib0.text("NaN")),
    "an item before and behind the same one": _update(b"\xc4\7\0\7\0" + lib0.text("a"), clock=1),
    "an item behind itself": _update(b"\x84\7\0" + lib0.text("a")),
    "an item before a later one": _update(b"\x44\7\4" + lib0.text("a"), clock=1),
    "a crowd of clients": lib0.uint(101)
    + b"".join(b"\1" + lib0.uint(client) + b"\0" + _string("a") for client in range(101))
    + b"\0",
    "a crowd at one place": _update(*(b"\x44\x08" + lib0.uint(2 * number) + lib0.text("a") for number in range(202))),
    "empty": b"",
    "cut off": _update(_string("abc"))[:-3],
    "something behind the end": _update(_string("abc")) + b"\0",
    "more clients than bytes": lib0.uint(2**40) + b"\0",
    "more items than bytes": b"\1" + lib0.uint(2**50) + _CLIENT + b"\0",
    "a number without an end": b"\xff" * 12,
    "a number beyond JavaScript's": b"\1\1" + lib0.uint(2**53) + b"\0",
    "a client twice": b"\2" + 2 * (b"\1" + _CLIENT + b"\0" + _string("a")) + b"\0",
    "a clock beyond the limit": _update(_string("a"), clock=MAX_CLOCK),
    "a gap of half a gigabyte": _update(b"\0" + lib0.uint(2**40)),
    "a skip beyond the limit": _update(b"\x0a" + lib0.uint(2**40)),
    "a deleted length beyond the limit": _update(b"\x01\1" + lib0.text("content") + lib0.uint(2**40)),
    "a gap with neighbours": _update(b"\x80\7\0\1"),
    "an empty string": _update(_string("")),
    "an empty gap": _update(b"\0\0"),
    "another root": _update(_string("a", root="default")),
    "an attribute": _update(_string("a", info=0x24)),
    "an item in another item": _update(b"\4\0\7\0" + lib0.text("a")),
    "text that is not UTF-8": _update(b"\4\1" + lib0.text("content") + lib0.buffer(b"\xff\xfe")),
    "a nested map": _made_by(lambda doc: doc.get("content", type=Map).update({"a": Map({"b": 1})})),
    "an array": _made_by(lambda doc: doc.get("content", type=Array).append(1)),
    "a subdocument": _made_by(lambda doc: doc.get("content", type=Map).update({"a": Doc()})),
    "an embed": _update(b"\5\1" + lib0.text("content") + lib0.text("{}")),
    "any values 40 deep": _update(b"\x08\1" + lib0.text("content") + b"\1" + b"\x75\1" * 40 + b"\x7e"),
    "more deletions than bytes": _update(deletes=b"\1" + _CLIENT + lib0.uint(2**30)),
    "a deletion beyond the limit": _update(deletes=b"\1" + _CLIENT + b"\1\0" + lib0.uint(2**40)),
}


@pytest.mark.parametrize("update", _HOSTILE.values(), ids=_HOSTILE)
def test_hostile_update_is_refused(update: bytes) -> None:
    """Each costs its sender the connection, and the document nothing."""
    with pytest.raises(Malformed):
        scan_update(update, MARKDOWN)


@given(st.lists(st.binary(max_size=4), max_size=8), st.integers(0, 200), st.binary(max_size=3))
@example([], 0, b"")
def test_what_passes_the_scan_does_no_harm(pieces: list[bytes], at: int, instead: bytes) -> None:
    """A valid update with bytes exchanged: refused here or there, or integrated, and never the end of the process."""
    made = Replica(MARKDOWN)
    made.edit(append("", "one 😀 two\n"))
    made.edit([Splice(4, "😀", "three")])
    whole = made.update_since()
    update = whole[: at % len(whole)] + instead + b"".join(pieces) + whole[at % len(whole) + len(instead) :]
    replica = Replica(MARKDOWN, [whole])
    try:
        scan_update(update, MARKDOWN)
        replica.apply(update)
    except ValueError:
        pass
    assert isinstance(replica.text, str)


def test_state_vector_is_read() -> None:
    """As Yjs writes it; what is none is refused."""
    replica = Replica(MARKDOWN, client_id=7)
    replica.edit(append("", "abc"))
    assert read_state(replica.state) == {7: 3}
    with pytest.raises(Malformed):
        read_state(b"\1\7")


@given(st.integers(0, 2**53 - 1), st.text(max_size=20), st.binary(max_size=20))
def test_numbers_texts_and_buffers_are_read_as_written(number: int, text: str, data: bytes) -> None:
    """Writing and reading are each other's inverse."""
    encodable = text.encode("utf-8", "replace").decode()
    reader = Reader(lib0.uint(number) + lib0.text(encodable) + lib0.buffer(data))
    assert (reader.uint(), reader.text(), reader.buffer()) == (number, encodable, data)
    reader.end()


def test_whoever_types_at_one_place_names_what_they_have_typed_there() -> None:
    """However often: that costs nothing."""
    doc: Doc[Text] = Doc(client_id=7)
    text = doc.get("content", type=Text)
    other: Doc[Text] = Doc(client_id=8)
    elsewhere = other.get("content", type=Text)
    elsewhere.insert(0, "before")
    doc.apply_update(other.get_update())
    for _ in range(1_000):
        text.insert(0, "a")
        text.insert(len(str(text)), "z")
        text.insert(3, "m")
    assert scan_update(doc.get_update(), MARKDOWN).inserted == 3_006
