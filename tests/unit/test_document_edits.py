"""Edits of a document's text: what is wanted comes out, and what an edit need not touch stays untouched."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.documents.edits import NotOnce, Splice, append, apply_splices, replace_once, rewrite
from common.documents.kinds import MARKDOWN
from common.documents.replica import Replica
from common.documents.update_scan import scan_update

_texts = st.text(st.sampled_from("ab\n 😀é\u200d"), max_size=40)


def test_replacement_touches_only_what_differs() -> None:
    """What the old and the new text begin and end with stays: somebody may be typing there."""
    splices = replace_once("one two three", "one two three", "one 2 three")
    assert splices == [Splice(4, "two", "2")]


def test_replacement_by_the_same_text_is_no_edit() -> None:
    """Nothing differs, so nothing is touched."""
    assert replace_once("abc", "b", "b") == []


@pytest.mark.parametrize(("text", "old", "times"), [("abc", "d", 0), ("aba", "a", 2), ("aaa", "aa", 2), ("abc", "", 0)])
def test_replacement_of_what_is_not_there_once_is_refused(text: str, old: str, times: int) -> None:
    """How often it is there is said; overlapping ones count, too."""
    with pytest.raises(NotOnce) as refusal:
        replace_once(text, old, "x")
    assert refusal.value.times == times


def test_rewrite_leaves_lines_that_stay() -> None:
    """Changes at both ends of a text are two edits, and the lines between them are in neither."""
    splices = rewrite("# Fish\n\ncod\neel\n\nend\n", "# Birds\n\ncod\neel\n\nthe end\n")
    assert [splice.at for splice in splices] == [2, 17]
    assert all("cod" not in splice.removed for splice in splices)


@given(_texts, _texts)
def test_rewrite_makes_what_is_wanted(text: str, wanted: str) -> None:
    """Any text becomes any other, in the replica as on paper, and everybody who gets the update has it, too."""
    mine = Replica(MARKDOWN)
    first = mine.edit(append("", text))
    theirs = Replica(MARKDOWN, [first] if first else [])
    splices = rewrite(text, wanted)

    update = mine.edit(splices)

    assert apply_splices(text, splices) == mine.text == wanted
    assert bool(update) == (text != wanted)
    if update:
        scan_update(update, MARKDOWN)
        assert theirs.apply(update)
    assert theirs.text == wanted


def test_rewrite_of_a_large_text_is_quick_work() -> None:
    """Ten thousand lines that all differ are replaced as a whole, not compared each with each."""
    lines = [f"{number}\n" for number in range(10_000)]
    splices = rewrite("".join(lines), "".join(f"x{line}" for line in lines))
    assert len(splices) == 1


@given(_texts, st.text(st.sampled_from("ab\n😀"), max_size=5))
def test_edits_of_two_at_once_are_both_kept(text: str, addition: str) -> None:
    """Whoever hears of which edit first: all end with the same text, which has what both have put in."""
    whole = Replica(MARKDOWN)
    seed = whole.edit(append("", text + "|"))
    one, other = Replica(MARKDOWN, [seed]), Replica(MARKDOWN, [seed])
    by_one = one.edit(append(one.text, "1" + addition))
    by_other = other.edit([Splice(0, "", "2" + addition)])
    one.apply(by_other)
    other.apply(by_one)
    assert one.text == other.text == f"2{addition}{text}|1{addition}"
