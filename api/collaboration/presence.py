"""Who is in a room: the awareness of y-protocols, with an owner for each entry, so that nobody stays as a ghost."""

from collections.abc import Hashable, Iterable
from typing import Any, NamedTuple

import msgspec

from api.collaboration.messages import Entry
from common.documents.lib0 import Malformed

MAX_STATE_BYTES = 16 * 1024
_MAX_CLIENTS = 16
"""Of one connection. Usually it has one; tabs of the same browser may speak through each other."""
_SILENT_S = 32.0
"""y-protocols forgets who was silent for 30 s."""
_RETURN_S = 2.0
_GONE = "null"


class _Known(NamedTuple):
    entry: Entry
    owner: Hashable
    local: bool
    until: float


class Presence:
    """What is known of a room's clients. Times are the event loop's, in seconds.

    A client id belongs to the connection that has announced it first. What is returned is what changed, and others are
    to be told.
    """

    def __init__(self) -> None:
        self._known: dict[int, _Known] = {}
        self._left: dict[int, tuple[int, float]] = {}

    @property
    def entries(self) -> list[Entry]:
        """Everybody who is there."""
        return [known.entry for known in self._known.values()]

    @property
    def local(self) -> list[Entry]:
        """Those who are connected to this process."""
        return [known.entry for known in self._known.values() if known.local]

    def tell(self, owner: Hashable, entries: Iterable[Entry], now: float) -> list[Entry]:
        """What a connection says. Raises Malformed for a state that is no JSON object.

        Clients repeat to the server what they hear of others: that is left out, and who has left does not come back
        by it. What a connection says first is about itself, though: it may have been connected elsewhere before.
        """
        held = sum(known.owner == owner for known in self._known.values())
        accepted = []
        for entry in entries:
            known = self._known.get(entry.client)
            if known is None and (held >= _MAX_CLIENTS or entry.state == _GONE):
                continue
            returns = known is not None and not known.local and held == 0 and entry.clock >= known.entry.clock
            if not returns and known is not None and known.owner != owner:
                continue
            if not returns and not self._is_newer(entry, known):
                continue
            _check_state(entry.state)
            held += 1
            accepted.append(entry)
            self._set(entry, _Known(entry, owner, True, now + _SILENT_S), now)
        return accepted

    def hear(self, owner: Hashable, entries: Iterable[Entry], now: float, lasting_s: float = _SILENT_S) -> list[Entry]:
        """What another process says, of clients that are not connected to this one."""
        accepted = []
        for entry in entries:
            known = self._known.get(entry.client)
            if known is not None and known.local:
                continue
            if known is not None and known.entry.clock == entry.clock and entry.state != _GONE:
                self._known[entry.client] = known._replace(owner=owner, until=now + lasting_s)
            elif self._is_newer(entry, known) and not (known is None and entry.state == _GONE):
                accepted.append(entry)
                self._set(entry, _Known(entry, owner, False, now + lasting_s), now)
        return accepted

    def leave(self, owner: Hashable, now: float) -> None:
        """A connection has gone. Who was announced by it is shown for a moment more: most come back at once, and a
        client that has left is believed to be back only with its next clock, which may take 15 s.
        """
        for client, known in self._known.items():
            if known.owner == owner:
                self._known[client] = known._replace(local=False, owner=None, until=now + _RETURN_S)

    def sweep(self, now: float) -> list[Entry]:
        """Those of whom nothing was heard for too long have left."""
        for client in [client for client, (_, until) in self._left.items() if until < now]:
            del self._left[client]
        gone = [known.entry._replace(state=_GONE) for known in self._known.values() if known.until < now]
        for entry in gone:
            self._set(entry, None, now)
        return gone

    def _is_newer(self, entry: Entry, known: _Known | None) -> bool:
        if known is None:
            return entry.clock > self._left.get(entry.client, (-1, 0))[0]
        if entry.clock == known.entry.clock:
            return entry.state == _GONE
        return entry.clock > known.entry.clock

    def _set(self, entry: Entry, known: _Known | None, now: float) -> None:
        if known is None or entry.state == _GONE:
            self._known.pop(entry.client, None)
            self._left[entry.client] = entry.clock, now + _SILENT_S
        else:
            self._known[entry.client] = known
            self._left.pop(entry.client, None)


def _check_state(state: str) -> None:
    if len(state.encode()) > MAX_STATE_BYTES:
        raise Malformed(f"a state of awareness has at most {MAX_STATE_BYTES} bytes")
    try:
        msgspec.json.decode(state, type=dict[str, Any] | None)
    except (msgspec.DecodeError, RecursionError):
        raise Malformed("a state of awareness is a JSON object, or null") from None
