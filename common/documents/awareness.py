"""Who is in a document, as y-protocols says it (`awareness.js`), and as processes tell each other."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from common.documents import lib0
from common.documents.lib0 import Reader

GONE = "null"
"""The state of a client that has left."""


class Entry(NamedTuple):
    """What one client says of itself, as JSON. A higher clock replaces a lower one."""

    client: int
    clock: int
    state: str

    @property
    def is_gone(self) -> bool:
        """Whether it says that the client has left."""
        return self.state == GONE


class Present(NamedTuple):
    """An entry, and whose client that is; an agent's is nobody's."""

    entry: Entry
    user: str


def read_entries(data: bytes) -> list[Entry]:
    """An awareness update. Raises Malformed; what the states say is not looked at."""
    reader = Reader(data)
    entries = [Entry(reader.uint(), reader.uint(), reader.text()) for _ in range(reader.count())]
    reader.end()
    return entries


def write_entries(entries: Iterable[Entry]) -> bytes:
    """An awareness update."""
    parts = [lib0.uint(entry.client) + lib0.uint(entry.clock) + lib0.text(entry.state) for entry in entries]
    return lib0.uint(len(parts)) + b"".join(parts)


def read_present(data: bytes) -> list[Present]:
    """What another process has told. Raises Malformed."""
    reader = Reader(data)
    entries = read_entries(reader.buffer())
    present = [Present(entry, reader.text()) for entry in entries]
    reader.end()
    return present


def write_present(present: Sequence[Present]) -> bytes:
    """What other processes are told."""
    users = b"".join(lib0.text(user) for _, user in present)
    return lib0.buffer(write_entries(entry for entry, _ in present)) + users
