"""y-websocket's messages: https://github.com/yjs/y-protocols, PROTOCOL.md. One message is one binary frame."""

from collections.abc import Iterable
from enum import IntEnum
from typing import NamedTuple

from common.documents import lib0
from common.documents.awareness import Entry, read_entries, write_entries
from common.documents.lib0 import Malformed, Reader


class _Type(IntEnum):
    SYNC = 0
    AWARENESS = 1
    AUTH = 2
    QUERY_AWARENESS = 3


class _Sync(IntEnum):
    STEP_1 = 0
    STEP_2 = 1
    UPDATE = 2


class AskChanges(NamedTuple):
    """Sync step 1: what the sender has; what it lacks is the answer."""

    state: bytes


class Changes(NamedTuple):
    """An update of the document: what the sender has just changed, or, as an answer, all that it was asked for."""

    update: bytes
    answers: bool = False


class TellPresence(NamedTuple):
    """Who is there, as far as the sender knows."""

    entries: list[Entry]


class AskPresence(NamedTuple):
    """Who is there?"""


Message = AskChanges | Changes | TellPresence | AskPresence

KEEP_ALIVE = bytes([_Type.AWARENESS]) + lib0.buffer(lib0.uint(0))
"""Says nothing. y-websocket takes a connection for dead that has been silent for 30 s."""


def read_message(data: bytes) -> Message:
    """What a client has sent. Raises Malformed."""
    reader = Reader(data)
    match reader.uint():
        case _Type.SYNC:
            message = _read_sync(reader)
        case _Type.AWARENESS:
            message = TellPresence(read_entries(reader.buffer()))
        case _Type.QUERY_AWARENESS:
            message = AskPresence()
        case other:
            raise Malformed(f"there is no message of type {other}")
    reader.end()
    return message


def ask_changes(state: bytes) -> bytes:
    """Asks for what somebody in `state` lacks."""
    return bytes([_Type.SYNC, _Sync.STEP_1]) + lib0.buffer(state)


def answer_changes(update: bytes) -> bytes:
    """What somebody who asked has lacked."""
    return bytes([_Type.SYNC, _Sync.STEP_2]) + lib0.buffer(update)


def tell_change(update: bytes) -> bytes:
    """Somebody has changed the document."""
    return bytes([_Type.SYNC, _Sync.UPDATE]) + lib0.buffer(update)


def tell_presence(entries: Iterable[Entry]) -> bytes:
    """Who is there, or has left."""
    return bytes([_Type.AWARENESS]) + lib0.buffer(write_entries(entries))


def refuse(reason: str) -> bytes:
    """Permission was denied, for what `reason` says."""
    return bytes([_Type.AUTH, 0]) + lib0.text(reason)


def _read_sync(reader: Reader) -> Message:
    match reader.uint():
        case _Sync.STEP_1:
            return AskChanges(reader.buffer())
        case _Sync.STEP_2:
            return Changes(reader.buffer(), True)
        case _Sync.UPDATE:
            return Changes(reader.buffer())
        case other:
            raise Malformed(f"there is no sync message of type {other}")
