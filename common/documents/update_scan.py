"""Looks at the structure of a Yjs update before the CRDT does.

A crafted update makes the library behind pycrdt reserve half a gigabyte, overflow the stack or panic; and an update of
another root type is content that nobody else sees. Update format 1: Yjs, `src/utils/encoding.js`; an item's parts:
`src/structs/Item.js`.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

from common.documents import lib0
from common.documents.characters import wide_units
from common.documents.kinds import Content, Kind
from common.documents.lib0 import Malformed, Reader

MAX_CLOCK = 2**31
"""One client's characters in one document, deleted ones included."""

_RANGES_AT_ONCE = 500
_Id = tuple[int, int]
"""Of an item: its client, and the clock of its first character."""

_CONTENT_BITS = 0x1F
_HAS_KEY = 0x20
_HAS_RIGHT = 0x40
_HAS_LEFT = 0x80
_MAX_CLIENTS = 100
"""An update is one client's, seldom that of some who have met elsewhere."""
_MAX_AT_ONE_PLACE = 200
"""Items behind the same neighbour that do not say that they stand before each other: each is compared with all the
others, so that some thousands would take minutes. Whoever types there names what they have typed there before.
"""


class Span(NamedTuple):
    """The clocks of one client that an update brings: from `first` to before `end`."""

    first: int
    end: int


class Scan(NamedTuple):
    """What an update claims to bring.

    `needs` is up to where it refers to each client's clocks: neighbours of what it brings, and what it deletes. Whoever
    lacks some of that cannot take it in; nor can anybody where something within it is left out (`has_gap`). `cuts` are
    the clients' clocks before which it puts something in, or begins or ends to delete; `ranges` how many pieces it
    deletes, from the byte `deletions_at` on; `wide` the clocks at which it brings characters of two units. Lengths are
    in UTF-16 units.
    """

    spans: dict[int, Span]
    has_gap: bool
    needs: dict[int, int]
    cuts: list[tuple[int, int]]
    wide: dict[int, list[int]]
    inserted: int
    removed: int
    ranges: int
    deletions_at: int

    @property
    def is_empty(self) -> bool:
        """Whether it brings nothing at all."""
        return not self.spans and not self.removed


def scan_update(update: bytes, kind: Kind, *, is_ours: bool = False) -> Scan:
    """What `update` brings to a document of this kind. Raises Malformed for one that must not reach it.

    What `is_ours` was accepted before, in pieces that kept the limits.
    """
    return _Scanner(update, kind, math.inf if is_ours else 1).scan()


def split_deletions(update: bytes, scan: Scan) -> list[bytes]:
    """`update` as several ones, of which none deletes more than some hundred pieces: many cost quadratic time."""
    if scan.ranges <= _RANGES_AT_ONCE:
        return [update]
    reader = Reader(update, scan.deletions_at)
    parts = [update[: scan.deletions_at] + b"\0"]
    for _ in range(reader.count()):
        client, count = reader.uint(), reader.count()
        for done in range(0, count, _RANGES_AT_ONCE):
            some = min(_RANGES_AT_ONCE, count - done)
            ranges = b"".join(lib0.uint(reader.uint()) + lib0.uint(reader.uint()) for _ in range(some))
            parts.append(b"\0\1" + lib0.uint(client) + lib0.uint(some) + ranges)
    return parts


def read_state(state: bytes) -> dict[int, int]:
    """A state vector: the next clock of each client. Raises Malformed."""
    reader = Reader(state)
    clocks = {reader.uint(): _checked(reader.uint()) for _ in range(reader.count())}
    reader.end()
    return clocks


def write_state(clocks: Mapping[int, int]) -> bytes:
    """The state vector of these clocks."""
    return lib0.uint(len(clocks)) + b"".join(lib0.uint(client) + lib0.uint(clock) for client, clock in clocks.items())


class _Scanner:
    """One pass over one update."""

    def __init__(self, update: bytes, kind: Kind, leniency: float) -> None:
        self._reader = Reader(update)
        self._kind = kind
        self._leniency = leniency
        self._needs: dict[int, int] = {}
        self._cuts: list[tuple[int, int]] = []
        self._wide: dict[int, list[int]] = {}
        self._inserted = 0
        self._ranges = 0
        self._has_gap = False
        self._places: dict[_Id | None, tuple[int, _Id]] = {}

    def scan(self) -> Scan:
        reader = self._reader
        spans: dict[int, Span] = {}
        clients = reader.count()
        if clients > _MAX_CLIENTS * self._leniency:
            raise Malformed(f"an update is of at most {_MAX_CLIENTS} clients")
        for _ in range(clients):
            items, client, first = reader.count(), reader.uint(), reader.uint()
            if client in spans:
                raise Malformed("a client comes twice")
            clock = first
            for _ in range(items):
                clock = _checked(clock + self._item(client, clock))
            spans[client] = Span(first, clock)
        deletions_at = reader.at
        removed = self._deletes()
        reader.end()
        return Scan(
            spans,
            self._has_gap,
            self._needs,
            self._cuts,
            self._wide,
            self._inserted,
            removed,
            self._ranges,
            deletions_at,
        )

    def _item(self, client: int, clock: int) -> int:
        """Reads one item; how many clocks it takes."""
        reader = self._reader
        info = reader.byte()
        content = info & _CONTENT_BITS
        if content not in self._kind.contents:
            raise Malformed(f"this document has no content of type {content}")
        if content == Content.SKIP:
            if info != content:
                raise Malformed("a gap has no neighbours")
            self._has_gap = True
            return _length(reader.uint())
        self._place(info, (client, clock))
        match content:
            case Content.DELETED:
                return _length(reader.uint())
            case Content.STRING:
                text = reader.text()
                wide = wide_units(text)
                if wide:
                    self._wide.setdefault(client, []).extend(clock + unit for unit in wide)
                length = _length(len(text) + len(wide))
                self._inserted += length
                return length
            case other:
                raise AssertionError(f"{other} is in no kind")

    def _place(self, info: int, item: _Id) -> None:
        """An item says who its neighbours are; one without any says where it is."""
        reader = self._reader
        left = self._neighbour(item) if info & _HAS_LEFT else None
        right = self._neighbour(item) if info & _HAS_RIGHT else None
        if left is not None:
            self._cuts.append((left[0], left[1] + 1))
        if right is not None:
            if left == right:
                raise Malformed("an item is before and behind the same one")
            self._cuts.append(right)
        self._crowd(left, right, item)
        if left is not None or right is not None:
            return
        if reader.uint() != 1:
            raise Malformed("this document has no nested types")
        root = reader.text()
        if root != self._kind.root:
            raise Malformed(f"this document's text is {self._kind.root!r}, not {root[:40]!r}")
        if info & _HAS_KEY:
            raise Malformed("this document has no attributes")

    def _neighbour(self, item: _Id) -> _Id:
        client, clock = self._reader.uint(), self._reader.uint()
        if client == item[0] and clock >= item[1]:
            raise Malformed("an item refers to a later one")
        self._need(client, _checked(clock + 1))
        return client, clock

    def _crowd(self, left: _Id | None, right: _Id | None, item: _Id) -> None:
        """Counts who stands behind the same neighbour without saying where among the others."""
        known = self._places.get(left)
        if known is None:
            self._places[left] = 1, item
            return
        count, before = known
        count += right != before
        if count > _MAX_AT_ONE_PLACE * self._leniency:
            raise Malformed("too much is at one place")
        self._places[left] = count, item

    def _deletes(self) -> int:
        reader = self._reader
        removed = 0
        for _ in range(reader.count()):
            client = reader.uint()
            ranges = reader.count()
            self._ranges += ranges
            for _ in range(ranges):
                first, length = reader.uint(), _length(reader.uint())
                self._need(client, _checked(first + length))
                self._cuts += ((client, first), (client, first + length))
                removed += length
        return removed

    def _need(self, client: int, end: int) -> None:
        if end > self._needs.get(client, 0):
            self._needs[client] = end


def _length(value: int) -> int:
    if value == 0:
        raise Malformed("an item is empty")
    return value


def _checked(clock: int) -> int:
    if clock > MAX_CLOCK:
        raise Malformed("a clock is too large")
    return clock
