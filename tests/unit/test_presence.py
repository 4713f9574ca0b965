"""Who is in a room: nobody stays as a ghost, nobody speaks for somebody else."""

from collections.abc import Hashable

import pytest

from api.collaboration.presence import Presence
from common.documents.awareness import Entry, Present, read_present, write_present
from common.documents.lib0 import Malformed

_HERE = '{"user":{"name":"a"}}'
_GONE = "null"
_ONE, _TWO = "a connection", "another connection"
_AWAY = "another process"


def _entry(clock: int, client: int = 7, state: str = _HERE) -> Entry:
    return Entry(client, clock, state)


def _tell(
    presence: Presence, owner: Hashable, *entries: Entry, user: str = "alice", now: float = 0, first: bool = False
) -> list[Entry]:
    """The news in what a connection says; nothing is bounced."""
    news, bounced = presence.tell(owner, user, entries, now, first=first)
    assert bounced == []
    return [entry for entry, _ in news]


def _hear(presence: Presence, *entries: Entry, user: str = "alice", now: float = 0) -> list[Entry]:
    return [entry for entry, _ in presence.hear(_AWAY, [Present(entry, user) for entry in entries], now)]


def _sweep(presence: Presence, now: float) -> list[Entry]:
    return [entry for entry, _ in presence.sweep(now)]


def test_whoever_is_announced_is_there() -> None:
    """The same again is no news, a higher clock is, a lower one is not."""
    presence = Presence()
    assert _tell(presence, _ONE, _entry(1)) == [_entry(1)]
    assert _tell(presence, _ONE, _entry(1)) == []
    assert _tell(presence, _ONE, _entry(3)) == [_entry(3)]
    assert _tell(presence, _ONE, _entry(2)) == []
    assert presence.entries == [_entry(3)]
    assert presence.local == [Present(_entry(3), "alice")]


@pytest.mark.parametrize("clock", [1, 2])
def test_client_that_says_so_has_left(clock: int) -> None:
    """Null with the clock it has, or a higher one."""
    presence = Presence()
    _tell(presence, _ONE, _entry(1))
    assert _tell(presence, _ONE, _entry(clock, state=_GONE)) == [_entry(clock, state=_GONE)]
    assert presence.entries == []


def test_nobody_speaks_for_somebody_else() -> None:
    """Neither with a higher clock nor to say that they have left, wherever they are connected, and first or not."""
    presence = Presence()
    _tell(presence, _ONE, _entry(1))
    _hear(presence, _entry(1, client=8))
    for first in (True, False):
        for client in (7, 8):
            stolen = _entry(5, client, '{"user":{"name":"b"}}'), _entry(6, client, _GONE)
            assert _tell(presence, _TWO, *stolen, user="bob", first=first) == []
    assert presence.entries == [_entry(1), _entry(1, client=8)]


def test_what_is_repeated_of_others_keeps_nobody_alive() -> None:
    """y-websocket tells the server what it hears of others, also who has no state of their own and speaks first."""
    presence = Presence()
    _hear(presence, _entry(1))
    assert _tell(presence, _TWO, _entry(1), user="bob", first=True) == []
    presence.leave(_TWO, 1)
    assert _hear(presence, _entry(1, state=_GONE)) == [_entry(1, state=_GONE)]
    assert presence.entries == []


def test_client_that_comes_back_is_told_that_it_has_left() -> None:
    """So that it says at once, with a higher clock, that it has not; until then it is shown as it was."""
    presence = Presence()
    _tell(presence, _ONE, _entry(3))
    presence.leave(_ONE, 1)
    news, bounced = presence.tell(_TWO, "alice", [_entry(3)], 1.5, first=True)
    assert (news, bounced) == ([], [_entry(3, state=_GONE)])
    assert presence.entries == [_entry(3)]
    assert _tell(presence, _TWO, _entry(4), now=1.6) == [_entry(4)]
    assert _sweep(presence, 10) == []
    assert presence.local == [Present(_entry(4), "alice")]


def test_client_that_comes_back_late_is_told_so_too() -> None:
    """And whoever repeats what it has said before hears that it has left."""
    presence = Presence()
    _tell(presence, _ONE, _entry(3))
    presence.leave(_ONE, 1)
    assert _sweep(presence, 2) == []
    assert _sweep(presence, 3.5) == [_entry(3, state=_GONE)]
    for owner, user in ((_TWO, "alice"), ("an echo", "bob")):
        news, bounced = presence.tell(owner, user, [_entry(2)], 4)
        assert (news, bounced) == ([], [_entry(3, state=_GONE)])
    assert _tell(presence, _TWO, _entry(4), now=5) == [_entry(4)]


def test_client_that_has_moved_is_known_at_once() -> None:
    """From another process that was killed and cannot say so, or over a line that nobody knows to be dead."""
    presence = Presence()
    _hear(presence, _entry(4))
    _tell(presence, _ONE, _entry(4, client=8))
    for client in (7, 8):
        news, bounced = presence.tell(f"new {client}", "alice", [_entry(4, client)], 1, first=True)
        assert (news, bounced) == ([], [_entry(4, client, _GONE)])
        assert _tell(presence, f"new {client}", _entry(5, client)) == [_entry(5, client)]
    presence.leave(_ONE, 2)
    assert _sweep(presence, 20) == []


def test_client_that_has_moved_elsewhere_is_let_go() -> None:
    """What its old connection leaves behind takes nothing from it."""
    presence = Presence()
    _tell(presence, _ONE, _entry(4))
    assert _hear(presence, _entry(5)) == [_entry(5)]
    presence.leave(_ONE, 1)
    assert _sweep(presence, 20) == []
    assert (presence.entries, presence.local) == ([_entry(5)], [])


def test_silent_client_has_left() -> None:
    """Of whom nothing was heard for 32 s, here or elsewhere; the same again is a sign of life of another process."""
    presence = Presence()
    _tell(presence, _ONE, _entry(1))
    _hear(presence, _entry(1, client=8), now=5)
    assert _sweep(presence, 31) == []
    assert _sweep(presence, 33) == [_entry(1, state=_GONE)]
    assert _hear(presence, _entry(1, client=8), now=34) == []
    assert _sweep(presence, 60) == []
    assert _sweep(presence, 70) == [_entry(1, client=8, state=_GONE)]


def test_other_process_does_not_speak_for_who_is_connected_here() -> None:
    """What it says of them is older than what they say themselves, or somebody else's."""
    presence = Presence()
    _tell(presence, _ONE, _entry(2))
    assert _hear(presence, _entry(9), user="bob") == []
    assert _hear(presence, _entry(1), _entry(9, state=_GONE)) == []
    assert presence.entries == [_entry(2)]


def test_connection_announces_at_most_sixteen() -> None:
    """Tabs of one browser may share a connection; a crowd may not."""
    presence = Presence()
    assert len(_tell(presence, _ONE, *(_entry(1, client=client) for client in range(40)))) == 16


@pytest.mark.parametrize(
    "state", ["", "{", "[]", "1", '"a"', "true", "{}x", '{"a":' * 5_000, '{"a":"' + "x" * 20_000 + '"}']
)
def test_state_is_a_json_object(state: str) -> None:
    """Anything else is refused, and nobody is told."""
    presence = Presence()
    with pytest.raises(Malformed):
        _tell(presence, _ONE, _entry(1, state=state))
    assert presence.entries == []


def test_processes_tell_each_other_whose_clients_these_are() -> None:
    """What is written is read back; anything cut off is refused."""
    present = [Present(_entry(1), "alice"), Present(_entry(2**53 - 1, 8, _GONE), "")]
    told = write_present(present)
    assert read_present(told) == present
    with pytest.raises(Malformed):
        read_present(told[:-1])
