"""What those who have a document open tell each other over Redis. Any of it may be lost: the updates are in Postgres,
and whoever misses a number looks there.
"""

import struct
from enum import IntEnum
from typing import NamedTuple
from uuid import UUID

from redis.asyncio import Redis

_HEAD = struct.Struct(">B16sQ")
_LARGEST_UPDATE = 256 * 1024


class Kind(IntEnum):
    """What a message says."""

    UPDATE = 1
    """An update and its number; without the update where that is too large to be told."""
    AWARENESS = 2
    """Who is there: `awareness.write_present`."""
    QUERY = 3
    """A process has just opened the document, and asks who is there."""
    VISIT = 4
    """An agent is at work in the document; told as who is there."""
    DELETED = 5
    """The document was deleted."""


class Note(NamedTuple):
    """One message. `sender` is the process that it comes from."""

    kind: Kind
    sender: UUID
    seq: int = 0
    payload: bytes = b""


def document_channel(document_id: UUID) -> str:
    """Where everything about a document is published."""
    return f"document:{document_id}"


async def publish(redis: Redis, document_id: UUID, note: Note) -> None:
    """Tells all who have the document open. Raises one of REDIS_DOWN."""
    payload = b"" if note.kind is Kind.UPDATE and len(note.payload) > _LARGEST_UPDATE else note.payload
    await redis.publish(document_channel(document_id), _HEAD.pack(note.kind, note.sender.bytes, note.seq) + payload)


def parse(data: bytes) -> Note:
    """What was published. Raises ValueError for what nobody of ours has."""
    try:
        kind, sender, seq = _HEAD.unpack_from(data)
    except struct.error as error:
        raise ValueError(str(error)) from None
    return Note(Kind(kind), UUID(bytes=sender), seq, data[_HEAD.size :])
