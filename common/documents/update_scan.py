"""Looks at the structure of a Yjs update before the CRDT does.

A crafted update makes the library behind pycrdt reserve half a gigabyte, overflow the stack or panic; and an update of
another root type is content that nobody else sees. Update format 1: Yjs, `src/utils/encoding.js`; an item's parts:
`src/structs/Item.js`.
"""

from collections.abc import Mapping
from typing import NamedTuple

from common.documents import lib0
from common.documents.characters import wide_units
from common.documents.kinds import Content, Kind
from common.documents.lib0 import Malformed, Reader

MAX_CLOCK = 2**31
"""One client's characters in one document, deleted ones included."""

_CONTENT_BITS = 0x1F
_HAS_KEY = 0x20
_HAS_RIGHT = 0x40
_HAS_LEFT = 0x80
_BARE = (Content.GC, Content.SKIP)


class Span(NamedTuple):
    """The clocks of one client that an update brings: from `first` to before `end`."""

    first: int
    end: int


class Scan(NamedTuple):
    """What an update claims to bring.

    `needs` is up to where it refers to each client's clocks: neighbours of what it brings, and what it deletes. Whoever
    lacks some of that cannot take it in. `cuts` are the clients' clocks before which it puts something in, or begins or
    ends to delete; `wide` the clocks at which it brings characters of two units. Lengths are in UTF-16 units.
    """

    spans: dict[int, Span]
    needs: dict[int, int]
    cuts: list[tuple[int, int]]
    wide: dict[int, list[int]]
    inserted: int
    removed: int

    @property
    def is_empty(self) -> bool:
        """Whether it brings nothing at all."""
        return not self.spans and not self.removed


def scan_update(update: bytes, kind: Kind) -> Scan:
    """What `update` brings to a document of this kind. Raises Malformed for one that must not reach it."""
    return _Scanner(update, kind).scan()


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

    def __init__(self, update: bytes, kind: Kind) -> None:
        self._reader = Reader(update)
        self._kind = kind
        self._needs: dict[int, int] = {}
        self._cuts: list[tuple[int, int]] = []
        self._wide: dict[int, list[int]] = {}
        self._inserted = 0

    def scan(self) -> Scan:
        reader = self._reader
        spans: dict[int, Span] = {}
        for _ in range(reader.count()):
            items, client, first = reader.count(), reader.uint(), reader.uint()
            if client in spans:
                raise Malformed("a client comes twice")
            clock = first
            for _ in range(items):
                clock = _checked(clock + self._item(client, clock))
            spans[client] = Span(first, clock)
        removed = self._deletes()
        reader.end()
        return Scan(spans, self._needs, self._cuts, self._wide, self._inserted, removed)

    def _item(self, client: int, clock: int) -> int:
        """Reads one item; how many clocks it takes."""
        reader = self._reader
        info = reader.byte()
        content = info & _CONTENT_BITS
        if content not in self._kind.contents:
            raise Malformed(f"this document has no content of type {content}")
        if content in _BARE:
            if info != content:
                raise Malformed("a gap has no neighbours")
            return _length(reader.uint())
        self._place(info)
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
            case _:  # Content.FORMAT: a key and a value in JSON
                reader.text()
                reader.text()
                return 1

    def _place(self, info: int) -> None:
        """An item says who its neighbours are; one without any says where it is."""
        reader = self._reader
        if info & _HAS_LEFT:
            client, end = reader.uint(), _checked(reader.uint() + 1)
            self._need(client, end)
            self._cuts.append((client, end))
        if info & _HAS_RIGHT:
            client, clock = reader.uint(), reader.uint()
            self._need(client, _checked(clock + 1))
            self._cuts.append((client, clock))
        if info & (_HAS_LEFT | _HAS_RIGHT):
            return
        if reader.uint() != 1:
            raise Malformed("this document has no nested types")
        root = reader.text()
        if root != self._kind.root:
            raise Malformed(f"this document's text is {self._kind.root!r}, not {root[:40]!r}")
        if info & _HAS_KEY:
            raise Malformed("this document has no attributes")

    def _deletes(self) -> int:
        reader = self._reader
        removed = 0
        for _ in range(reader.count()):
            client = reader.uint()
            for _ in range(reader.count()):
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
