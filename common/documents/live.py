"""A document that is open: takes strangers' updates without letting any of them harm it.

What reaches the CRDT has been looked at before, and is complete: an update whose neighbours are missing would be kept
aside by the library, without a limit and unseen. So who sent it is asked for what is missing instead.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from common.documents.characters import WideCharacters
from common.documents.kinds import Kind
from common.documents.lib0 import Malformed
from common.documents.replica import Replica
from common.documents.update_scan import Scan, read_state, scan_update, write_state
from common.model.documents import MAX_DOCUMENT_BYTES

MAX_STORED_BYTES = 50_000_000
"""Of a document with all that was ever deleted in it."""

_LARGEST_UNIT = 3
"""Bytes of UTF-8 for one unit of UTF-16, at most."""


class Incomplete(Exception):
    """The update needs something that is not here."""


class Full(Exception):
    """With the update the document would be larger than one may be."""


class Broken(Exception):
    """The library failed: what is in memory is worth nothing any more."""


class Taken(NamedTuple):
    """What of an update was new here: `data` is an update, too, and `scan` what it brings."""

    data: bytes
    scan: Scan


_HAS_WIDE = re.compile(rb"[\xf0-\xf4][\x80-\xbf]{3}")
"""A character of two units, in UTF-8; or bytes that only look like one."""


def wide_characters(kind: Kind, parts: Sequence[bytes]) -> WideCharacters:
    """Those of a document that is to be opened. For a long one full of them it takes seconds: call it in a thread."""
    wide = WideCharacters()
    for part in parts:
        if _HAS_WIDE.search(part):  # Seldom: reading all updates in Python would take longer than opening.
            for client, clocks in scan_update(part, kind, is_ours=True).wide.items():
                wide.note(client, clocks)
    return wide


class LiveDocument:
    """What `parts` make together, and what it takes in afterwards."""

    def __init__(self, kind: Kind, parts: Sequence[bytes], wide: WideCharacters) -> None:
        self._kind = kind
        self._replica = Replica(kind, parts)
        self._clocks = read_state(self._replica.state)
        self._wide = wide
        self._stored_bytes = sum(map(len, parts))
        self._text_bytes = len(self._replica.text.encode())

    @property
    def text(self) -> str:
        """The text as it reads now."""
        return self._replica.text

    @property
    def state(self) -> bytes:
        """The state vector: what of each client is here."""
        return self._replica.state

    @property
    def known_state(self) -> bytes:
        """The state vector as it was after the last update that was taken in, which `Broken` does not change."""
        return write_state(self._clocks)

    def update_since(self, state: bytes) -> bytes:
        """All that somebody in `state` lacks. Raises Malformed for what is no state vector."""
        if any(self._wide.has_cut(client, clock) for client, clock in read_state(state).items()):
            raise Malformed("nobody has half a character")
        return self._replica.update_since(state)

    def take(self, update: bytes, claimed: Scan) -> Taken | None:
        """Takes in what a client has sent, and `scan_update` has read; None when nothing of it is new.

        Raises Malformed, Incomplete and Full for an update that it has left alone, and Broken.
        """
        if claimed.is_empty:
            return None
        self._check_complete(claimed)
        self._check_characters(claimed)
        self._check_size(len(update), claimed.inserted)
        taken = self._apply(update, claimed)
        brought = {} if taken is None else taken.scan.spans
        # Items that wait for each other: the library has put them aside, where they would stay for good.
        for client, span in claimed.spans.items():
            if span.end > max(self._clocks.get(client, 0), brought[client].end if client in brought else 0):
                raise Broken("an update was not taken in as a whole")
        return self._note(taken)

    def follow(self, update: bytes) -> Taken | None:
        """Takes in what the log has, which comes in the log's order; None when nothing of it is new. Raises Broken,
        also where some of it is here already: somebody has told two processes the same, or not the same.
        """
        claimed = scan_update(update, self._kind, is_ours=True)
        if any(span.first < self._clocks.get(client, 0) for client, span in claimed.spans.items()):
            raise Broken("the log has what is here already")
        return self._note(self._apply(update, claimed))

    def close(self) -> None:
        """Frees the document."""
        self._replica.close()

    def _check_complete(self, claimed: Scan) -> None:
        if claimed.has_gap:
            raise Incomplete
        for client, span in claimed.spans.items():
            if span.first > self._clocks.get(client, 0):
                raise Incomplete
        for client, end in claimed.needs.items():
            brought = claimed.spans.get(client)
            if end > max(self._clocks.get(client, 0), brought.end if brought else 0):
                raise Incomplete

    def _check_characters(self, claimed: Scan) -> None:
        brought = WideCharacters()
        for client, clocks in claimed.wide.items():
            brought.note(client, clocks)
        edges = [(client, span.first) for client, span in claimed.spans.items()]
        edges += [(client, self._clocks.get(client, 0)) for client in claimed.spans]  # where what is new in it begins
        for client, clock in (*claimed.cuts, *edges):
            if self._wide.has_cut(client, clock) or brought.has_cut(client, clock):
                raise Malformed("an edit comes between the halves of a character")

    def _check_size(self, size: int, inserted: int) -> None:
        if self._stored_bytes + size > MAX_STORED_BYTES:
            raise Full("with what was deleted in it the document is too large")
        if self._text_bytes + _LARGEST_UNIT * inserted <= MAX_DOCUMENT_BYTES:
            return
        self._text_bytes = len(self._replica.text.encode())
        if self._text_bytes + _LARGEST_UNIT * inserted > MAX_DOCUMENT_BYTES:
            raise Full(f"a document has at most {MAX_DOCUMENT_BYTES} bytes")

    def _apply(self, update: bytes, claimed: Scan) -> Taken | None:
        try:
            data = self._replica.apply(update)
            if not data:
                return None
            scan = claimed if data == update else scan_update(data, self._kind, is_ours=True)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # A panic of the library is no Exception.
            raise Broken(repr(error)) from error
        return Taken(data, scan)

    def _note(self, taken: Taken | None) -> Taken | None:
        if taken is not None:
            for client, span in taken.scan.spans.items():
                self._clocks[client] = span.end
            for client, clocks in taken.scan.wide.items():
                self._wide.note(client, clocks)
            self._stored_bytes += len(taken.data)
            self._text_bytes += _LARGEST_UNIT * taken.scan.inserted
        return taken
