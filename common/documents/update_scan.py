"""Looks at the structure of a Yjs update before the CRDT does.

A crafted update makes the library behind pycrdt reserve half a gigabyte, overflow the stack or panic; and an update of
another root type is content that nobody else sees. Update format 1: Yjs, `src/utils/encoding.js`; an item's parts:
`src/structs/Item.js`.
"""

from typing import NamedTuple

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
    """What an update claims to bring."""

    spans: dict[int, Span]
    deletes: bool

    @property
    def is_empty(self) -> bool:
        """Whether it brings nothing at all."""
        return not self.spans and not self.deletes


def scan_update(update: bytes, kind: Kind) -> Scan:
    """What `update` brings to a document of this kind. Raises Malformed for one that must not reach it."""
    reader = Reader(update)
    spans: dict[int, Span] = {}
    for _ in range(reader.count()):
        items, client, first = reader.count(), reader.uint(), reader.uint()
        if client in spans:
            raise Malformed("a client comes twice")
        clock = first
        for _ in range(items):
            clock = _checked(clock + _item(reader, kind))
        spans[client] = Span(first, clock)
    deletes = _scan_deletes(reader)
    reader.end()
    return Scan(spans, deletes)


def read_state(state: bytes) -> dict[int, int]:
    """A state vector: the next clock of each client. Raises Malformed."""
    reader = Reader(state)
    clocks = {reader.uint(): _checked(reader.uint()) for _ in range(reader.count())}
    reader.end()
    return clocks


def _item(reader: Reader, kind: Kind) -> int:
    """Reads one item; how many clocks it takes."""
    info = reader.byte()
    content = info & _CONTENT_BITS
    if content not in kind.contents:
        raise Malformed(f"this document has no content of type {content}")
    if content in _BARE:
        if info != content:
            raise Malformed("a gap has no neighbours")
        return _length(reader.uint())
    _read_place(reader, info, kind)
    match content:
        case Content.DELETED:
            return _length(reader.uint())
        case Content.STRING:
            return _length(len(reader.text().encode("utf-16-le")) // 2)
        case _:  # Content.FORMAT: a key and a value in JSON
            reader.text()
            reader.text()
            return 1


def _read_place(reader: Reader, info: int, kind: Kind) -> None:
    """An item says who its neighbours are; one without any says where it is."""
    for side in (_HAS_LEFT, _HAS_RIGHT):
        if info & side:
            reader.uint()
            _checked(reader.uint())
    if info & (_HAS_LEFT | _HAS_RIGHT):
        return
    if reader.uint() != 1:
        raise Malformed("this document has no nested types")
    root = reader.text()
    if root != kind.root:
        raise Malformed(f"this document's text is {kind.root!r}, not {root[:40]!r}")
    if info & _HAS_KEY:
        raise Malformed("this document has no attributes")


def _scan_deletes(reader: Reader) -> bool:
    clients = reader.count()
    for _ in range(clients):
        reader.uint()
        for _ in range(reader.count()):
            _checked(reader.uint() + _length(reader.uint()))
    return clients > 0


def _length(value: int) -> int:
    if value == 0:
        raise Malformed("an item is empty")
    return value


def _checked(clock: int) -> int:
    if clock > MAX_CLOCK:
        raise Malformed("a clock is too large")
    return clock
