"""Who is in a room: the awareness of y-protocols, with an owner for each entry, so that nobody stays as a ghost."""

from collections.abc import Hashable, Iterable
from typing import Any, NamedTuple

import msgspec

from common.documents.awareness import GONE, Entry, Present
from common.documents.lib0 import Malformed

MAX_STATE_BYTES = 16 * 1024
_MAX_CLIENTS = 16
"""Of one connection. Usually it has one; tabs of the same browser may speak through each other."""
_SILENT_S = 32.0
"""y-protocols forgets who was silent for 30 s."""
_RETURN_S = 2.0


class _Known(NamedTuple):
    present: Present
    owner: Hashable
    """The connection or the process that speaks for the client; None once it has gone."""
    local: bool
    until: float


class Answer(NamedTuple):
    """What others are to be told, and what only the one who has spoken."""

    news: list[Present]
    bounced: list[Entry]


class Presence:
    """What is known of a room's clients. Times are the event loop's, in seconds.

    A client id belongs to the connection that has announced it; another one of the same user may take it over, by a
    higher clock. So clients repeat in vain what they hear of others, as y-websocket's do. A client that comes back with
    the clock that it had is told that it has left: thereupon it says, with a higher clock, that it has not, and all
    believe it. Otherwise nobody would before its next sign of life, which may take 15 s.
    """

    def __init__(self) -> None:
        self._known: dict[int, _Known] = {}
        self._left: dict[int, tuple[int, float]] = {}

    @property
    def entries(self) -> list[Entry]:
        """Everybody who is there."""
        return [known.present.entry for known in self._known.values()]

    @property
    def local(self) -> list[Present]:
        """Those who are connected to this process."""
        return [known.present for known in self._known.values() if known.local]

    def tell(self, owner: Hashable, user: str, entries: Iterable[Entry], now: float, *, first: bool = False) -> Answer:
        """What a connection of `user` says; `first`: it cannot have heard of others, so this is about itself. Raises
        Malformed for a state that is no JSON object.
        """
        held = sum(known.owner == owner for known in self._known.values())
        answer = Answer([], [])
        for entry in entries:
            known = self._known.get(entry.client)
            if known is None and (entry.is_gone or held >= _MAX_CLIENTS):
                continue
            clock = self._clock(entry.client)
            if not self._may_speak(known, owner, user, entry):
                continue
            if entry.clock <= clock and not (entry.is_gone and entry.clock == clock):
                if known is None or known.owner is None or (first and known.owner != owner):
                    answer.bounced.append(Entry(entry.client, clock, GONE))
                continue
            _check_state(entry.state)
            held += known is None or known.owner != owner
            self._set(_Known(Present(entry, user), owner, True, now + _SILENT_S), now)
            answer.news.append(Present(entry, user))
        return answer

    def hear(self, owner: Hashable, told: Iterable[Present], now: float, lasting_s: float = _SILENT_S) -> list[Present]:
        """What another process says; the news in it. Of whom is connected here it knows more only if they have gone
        there.
        """
        news = []
        for present in told:
            entry, user = present
            known = self._known.get(entry.client)
            if known is not None and known.local and (known.present.user != user or entry.is_gone):
                continue
            if known is not None and not known.local and known.present.entry.clock == entry.clock and not entry.is_gone:
                self._known[entry.client] = known._replace(owner=owner, until=now + lasting_s)
                continue
            clock = self._clock(entry.client)
            if (known is None and entry.is_gone) or entry.clock < clock or (entry.clock == clock and not entry.is_gone):
                continue
            self._set(_Known(present, owner, False, now + lasting_s), now)
            news.append(present)
        return news

    def leave(self, owner: Hashable, now: float) -> None:
        """A connection has gone. Who was announced by it is shown for a moment more: most come back at once."""
        for client, known in self._known.items():
            if known.owner == owner:
                self._known[client] = known._replace(local=False, owner=None, until=now + _RETURN_S)

    def sweep(self, now: float) -> list[Present]:
        """Those of whom nothing was heard for too long have left."""
        for client in [client for client, (_, until) in self._left.items() if until < now]:
            del self._left[client]
        gone = [known for known in self._known.values() if known.until < now]
        news = [Present(known.present.entry._replace(state=GONE), known.present.user) for known in gone]
        for known, present in zip(gone, news, strict=True):
            self._set(known._replace(present=present), now)
        return news

    def _may_speak(self, known: _Known | None, owner: Hashable, user: str, entry: Entry) -> bool:
        return known is None or known.owner == owner or (known.present.user == user and not entry.is_gone)

    def _clock(self, client: int) -> int:
        """The clock that is known of a client, whether it is there or has left; -1 without any."""
        known = self._known.get(client)
        return self._left.get(client, (-1, 0.0))[0] if known is None else known.present.entry.clock

    def _set(self, known: _Known, now: float) -> None:
        entry = known.present.entry
        if entry.is_gone:
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
