"""An open document: takes in what is complete, and nothing else."""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycrdt import Doc, Text

from common.documents import lib0, update_scan
from common.documents.kinds import MARKDOWN
from common.documents.lib0 import Malformed
from common.documents.live import Broken, Full, Incomplete, LiveDocument, wide_characters
from common.documents.replica import Replica, merged
from common.documents.update_scan import Span, read_state, scan_update, split_deletions
from common.model.documents import MAX_DOCUMENT_BYTES


class _Writer:
    """Somebody who edits alone, and the updates that this makes."""

    def __init__(self, client: int) -> None:
        self.doc: Doc[Text] = Doc(client_id=client)
        self.text: Text = self.doc.get("content", type=Text)
        self.updates: list[bytes] = []
        self._subscription = self.doc.observe(lambda event: self.updates.append(event.update))


def _open(parts: list[bytes]) -> LiveDocument:
    return LiveDocument(MARKDOWN, parts, wide_characters(MARKDOWN, parts))


def _take(live: LiveDocument, update: bytes) -> Any:
    return live.take(update, scan_update(update, MARKDOWN))


def test_what_is_new_is_taken_once() -> None:
    """The second time there is nothing new in it."""
    writer = _Writer(7)
    writer.text.insert(0, "cod 😀")
    live = _open([])
    taken = _take(live, writer.updates[0])
    assert (taken.data, taken.scan.inserted, taken.scan.removed) == (writer.updates[0], 6, 0)
    assert _take(live, writer.updates[0]) is None
    assert live.text == "cod 😀"
    assert live.known_state == live.state


def test_part_that_is_new_is_told_alone() -> None:
    """Of an update that is known in part."""
    writer = _Writer(7)
    writer.text.insert(0, "cod")
    live = _open([writer.doc.get_update()])
    writer.text.insert(3, " eel")
    taken = _take(live, writer.doc.get_update())
    assert (taken.scan.spans, taken.scan.inserted) == ({7: Span(3, 7)}, 4)


@pytest.mark.parametrize("missing", ["earlier clocks", "a neighbour", "what is deleted"])
def test_update_that_needs_what_is_not_here_is_left_alone(missing: str) -> None:
    """It would be kept aside, unseen, without a limit."""
    first, second = _Writer(7), _Writer(8)
    first.text.insert(0, "cod")
    second.doc.apply_update(first.doc.get_update())
    match missing:
        case "earlier clocks":
            first.text.insert(3, " eel")
            update = first.updates[1]
        case "a neighbour":
            second.text.insert(1, "x")
            update = second.updates[-1]
        case _:
            del second.text[0:2]
            update = second.updates[-1]
    live = _open([])
    with pytest.raises(Incomplete):
        _take(live, update)
    assert (live.text, live.state) == ("", b"\0")
    _take(live, first.updates[0])
    _take(live, update)
    assert live.text == str(second.text if missing != "earlier clocks" else first.text)


def test_items_that_wait_for_each_other_break_it() -> None:
    """Two that are each the other's neighbour: whoever sent that is at fault, and the document is made anew."""
    crossed = [(1, 2), (2, 1)]
    update = lib0.uint(2) + b"".join(
        b"\1" + lib0.uint(client) + b"\0" + b"\x84" + lib0.uint(other) + b"\0" + lib0.text("a")
        for client, other in crossed
    )
    live = _open([])
    with pytest.raises(Broken):
        _take(live, update + b"\0")
    assert live.known_state == b"\0"


def test_document_has_a_limit() -> None:
    """Of what it reads, however much was deleted before; exact, though it is estimated first."""
    writer = _Writer(7)
    half = "x" * (MAX_DOCUMENT_BYTES // 2)
    writer.text.insert(0, half)
    live = _open([writer.doc.get_update()])
    piece = "y" * (MAX_DOCUMENT_BYTES // 8)
    for _ in range(4):
        writer.text.insert(0, piece)
        if len(str(writer.text)) + 2 * len(piece) <= MAX_DOCUMENT_BYTES:
            _take(live, writer.updates[-1])
    with pytest.raises(Full):
        _take(live, writer.doc.get_update(live.state))


@given(st.data())
def test_any_order_of_arrival_ends_in_the_same_text(data: st.DataObject) -> None:
    """Three people edit at once; what came too early is sent again, as the server asks."""
    writers = [_Writer(client) for client in (1, 2, 3)]
    updates: list[bytes] = []
    for _ in range(data.draw(st.integers(1, 12))):
        writer = data.draw(st.sampled_from(writers))
        size = len(str(writer.text).encode())
        at = data.draw(st.integers(0, size))
        if data.draw(st.booleans()) or not size:
            writer.text.insert(at, data.draw(st.text("ab", min_size=1, max_size=3)))
        else:
            del writer.text[min(at, size - 1) : size]
        updates.append(writer.updates[-1])
        if data.draw(st.booleans()):
            other = data.draw(st.sampled_from(writers))
            other.doc.apply_update(writer.updates[-1])
    live, waiting = _open([]), list(data.draw(st.permutations(updates)))
    log: list[bytes] = []
    while waiting:
        early = []
        for update in waiting:
            try:
                taken = _take(live, update)
            except Incomplete:
                early.append(update)
            else:
                log += [taken.data] if taken is not None else []
        assert len(early) < len(waiting)
        waiting = early
    whole: Doc[Text] = Doc()
    whole_text = whole.get("content", type=Text)
    for update in updates:
        whole.apply_update(update)
    assert live.text == str(whole_text)
    replayed = _open([])
    for update in log:
        replayed.follow(update)
    assert replayed.text == Replica(MARKDOWN, [merged(MARKDOWN, log)]).text == live.text
    assert read_state(live.known_state) == read_state(live.state) == read_state(replayed.state)


def test_scan_says_what_an_update_needs() -> None:
    """Neighbours on both sides, and what is deleted."""
    first, second = _Writer(7), _Writer(8)
    first.text.insert(0, "cod")
    second.doc.apply_update(first.doc.get_update())
    with second.doc.transaction():
        second.text.insert(1, "x")
        del second.text[3:4]
    cuts = [(7, 1), (7, 1), (7, 2), (7, 3)]
    scan = scan_update(second.updates[-1], MARKDOWN)
    assert (scan.spans, scan.needs, scan.cuts) == ({8: Span(0, 1)}, {7: 3}, cuts)
    assert (scan.inserted, scan.removed, scan.ranges, scan.wide, scan.has_gap) == (1, 1, 1, {}, False)


_CUTS = {
    "something between the halves": b"\1\1\x08\0\xc4\7\1\7\2" + lib0.text("x") + b"\0",
    "the second half deleted": b"\0\1\7\1\2\1",
    "the first half deleted": b"\0\1\7\1\1\1",
    "what is known, from the second half on": b"\1\1\7\2\x84\7\1" + lib0.text("\N{REPLACEMENT CHARACTER}bc") + b"\0",
    "a character whose first half is known": b"\1\1\7\3\x84\7\2" + lib0.text("😀") + b"\0",
    "something between the halves of what it brings": b"\1\2\x08\0\x84\7\3"
    + lib0.text("😀")
    + b"\x84\x08\0"
    + lib0.text("x")
    + b"\0",
}


@pytest.mark.parametrize("update", _CUTS.values(), ids=_CUTS)
def test_character_is_not_cut_in_two(update: bytes) -> None:
    """Yjs would make two U+FFFD of it, and the library here something else: the copies would differ for good."""
    first = b"\1\1\7\0\4\1" + lib0.text("content") + lib0.text("a😀b") + b"\0"
    taken = _open([])
    _take(taken, first)
    loaded = _open([b"\0\0", first])
    for live in (taken, loaded):
        with pytest.raises(Malformed):
            _take(live, update)
        assert live.text == "a😀b"
        with pytest.raises(Malformed):
            live.update_since(b"\1\7\2")


def test_wide_characters_are_known_by_their_clocks() -> None:
    """However they came: typed one by one, or at once."""
    writer = _Writer(7)
    for text in ("😀", "a", "b😀😀"):
        writer.text.insert(len(str(writer.text).encode()), text)
    one_by_one, at_once = _open([]), _open([writer.doc.get_update()])
    for update in writer.updates:
        _take(one_by_one, update)
    for live in (one_by_one, at_once):
        assert [clock for clock in range(9) if live._wide.has_cut(7, clock)] == [1, 5, 7]


def test_snapshot_that_would_say_something_else_is_not_made() -> None:
    """As it would of a log in which a character is cut: better a long tail than another text."""
    first = b"\1\1\7\0\4\1" + lib0.text("content") + lib0.text("a😀b") + b"\0"
    with pytest.raises(AssertionError, match="snapshot"):
        merged(MARKDOWN, [first, _CUTS["something between the halves"]])


def test_snapshot_of_many_keystrokes_is_small() -> None:
    """At most 15 bytes each, with jumps and deletions as people make them: 200,000 of them take less than 3 MB."""
    chance = random.Random(7)
    writers = [_Writer(client) for client in (1, 2)]
    parts: list[bytes] = []
    for _ in range(500):
        writer = chance.choice(writers)
        at = chance.randint(0, len(str(writer.text)))
        for _ in range(chance.randint(5, 40)):
            if at and chance.random() < 0.1:
                at -= 1
                del writer.text[at : at + 1]
            else:
                writer.text.insert(at, chance.choice("abcdefgh "))
                at += 1
        for other in writers:
            if other is not writer:
                other.doc.apply_update(writer.doc.get_update(other.doc.get_state()))
        parts += writer.updates
        for each in writers:
            each.updates.clear()
    assert len(parts) > 8_000
    assert len(merged(MARKDOWN, parts)) < 15 * len(parts)


def test_update_with_something_left_out_is_left_alone() -> None:
    """The library would take in what lies behind the gap, and editors would not."""
    gap = b"\1\3\7\0" + b"\4\1" + lib0.text("content") + lib0.text("x") + b"\x0a\5" + b"\4\1"
    live = _open([])
    with pytest.raises(Incomplete):
        _take(live, gap + lib0.text("content") + lib0.text("y") + b"\0")
    assert live.text == ""


def test_log_that_has_what_is_here_already_is_not_trusted() -> None:
    """Somebody has said the same at two places, or with one client id two different things."""
    here, there = _Writer(7), _Writer(7)
    here.text.insert(0, "aaaa")
    there.text.insert(0, "bb")
    live = _open([])
    _take(live, here.updates[0])
    for told in (there.updates[0], here.updates[0]):
        with pytest.raises(Broken):
            live.follow(told)
    assert live.text == "aaaa"


@given(st.lists(st.tuples(st.integers(0, 3_000), st.integers(1, 3)), max_size=200), st.integers(1, 40))
def test_deletions_in_pieces_are_the_same(deletions: list[tuple[int, int]], at_once: int) -> None:
    """However small the pieces are."""
    writer = _Writer(7)
    writer.text.insert(0, "word " * 600)
    before = writer.doc.get_update()
    for at, length in deletions:
        size = len(str(writer.text))
        if at < size:
            del writer.text[at : min(at + length, size)]
    writer.text.insert(0, "new")
    update = writer.doc.get_update()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(update_scan, "_RANGES_AT_ONCE", at_once)
        pieces = split_deletions(update, scan_update(update, MARKDOWN))
        assert all(scan_update(piece, MARKDOWN).ranges <= at_once for piece in pieces)
    live = _open([before])
    for piece in pieces:
        _take(live, piece)
    assert live.text == str(writer.text)
