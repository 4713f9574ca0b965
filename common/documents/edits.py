"""Edits of a text, as pure functions of strings: what to take out and what to put in, and nothing that stays.

What an edit does not touch keeps the identity of its characters, and with it everybody's cursor and what they type
there at the same moment.
"""

from collections.abc import Sequence
from difflib import SequenceMatcher
from itertools import pairwise
from typing import NamedTuple

_LARGEST_DIFF = 60_000
"""Pairs of lines that are compared at most: beyond, what lies between the common ends is replaced as a whole."""


class Splice(NamedTuple):
    """At `at` (a code point) `removed` gives way to `inserted`."""

    at: int
    removed: str
    inserted: str


class NotOnce(ValueError):
    """The text to be replaced is there `times` times."""

    def __init__(self, times: int) -> None:
        super().__init__(f"it is there {times} times")
        self.times = times


def replace_once(text: str, old: str, new: str) -> list[Splice]:
    """Puts `new` where `old` is. Raises NotOnce unless `old` is there exactly once, overlaps counted."""
    times = _count(text, old)
    if times != 1:
        raise NotOnce(times)
    return _splice(text.index(old), old, new)


def append(text: str, addition: str) -> list[Splice]:
    """Puts `addition` at the end."""
    return [Splice(len(text), "", addition)] if addition else []


def rewrite(text: str, wanted: str) -> list[Splice]:
    """Makes `wanted` of `text` line by line, in order: lines that stay are not touched, nor what two lines share."""
    old, new = text.splitlines(keepends=True), wanted.splitlines(keepends=True)
    head = _common(old, new)
    tail = _common(old[head:][::-1], new[head:][::-1])
    between_old, between_new = old[head : len(old) - tail], new[head : len(new) - tail]
    if len(between_old) * len(between_new) > _LARGEST_DIFF:
        blocks = [("replace", 0, len(between_old), 0, len(between_new))]
    else:
        blocks = list(SequenceMatcher(None, between_old, between_new, autojunk=False).get_opcodes())
    starts = _offsets(between_old, len("".join(old[:head])))
    return [
        splice
        for tag, i1, i2, j1, j2 in blocks
        if tag != "equal"
        for splice in _splice(starts[i1], "".join(between_old[i1:i2]), "".join(between_new[j1:j2]))
    ]


def apply_splices(text: str, splices: Sequence[Splice]) -> str:
    """The text after the splices, whose places are those in `text`, in order."""
    assert all(one.at + len(one.removed) <= other.at for one, other in pairwise(splices))
    parts, at = [], 0
    for splice in splices:
        assert text.startswith(splice.removed, splice.at)
        parts += [text[at : splice.at], splice.inserted]
        at = splice.at + len(splice.removed)
    return "".join([*parts, text[at:]])


def _splice(at: int, old: str, new: str) -> list[Splice]:
    """`old` becomes `new`, without what both begin and end with."""
    head = _common(old, new)
    tail = _common(old[head:][::-1], new[head:][::-1])
    removed, inserted = old[head : len(old) - tail], new[head : len(new) - tail]
    return [Splice(at + head, removed, inserted)] if removed or inserted else []


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    """How many elements both begin with."""
    same, limit = 0, min(len(one), len(other))
    while same < limit:  # By halves: comparing slices costs a hundredth of comparing their elements one by one.
        middle = (same + limit + 1) // 2
        if one[same:middle] == other[same:middle]:
            same = middle
        else:
            limit = middle - 1
    return same


def _count(text: str, part: str) -> int:
    count, at = 0, text.find(part)
    while at >= 0 and part:
        count += 1
        at = text.find(part, at + 1)
    return count


def _offsets(lines: Sequence[str], start: int) -> list[int]:
    offsets = [start]
    for line in lines:
        offsets.append(offsets[-1] + len(line))
    return offsets
