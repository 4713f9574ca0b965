"""Who is in a room: nobody stays as a ghost, nobody speaks for somebody else."""

import pytest

from api.collaboration.messages import Entry
from api.collaboration.presence import Presence
from common.documents.lib0 import Malformed

_ALICE, _BOB, _AWAY = object(), object(), object()
_HERE = '{"user":{"name":"a"}}'
_GONE = "null"


def _entry(clock: int, client: int = 7, state: str = _HERE) -> Entry:
    return Entry(client, clock, state)


def test_whoever_is_announced_is_there() -> None:
    """The same again is no news, a higher clock is."""
    presence = Presence()
    assert presence.tell(_ALICE, [_entry(1)], 0) == [_entry(1)]
    assert presence.tell(_ALICE, [_entry(1)], 1) == []
    assert presence.tell(_ALICE, [_entry(2)], 2) == [_entry(2)]
    assert presence.entries == presence.local == [_entry(2)]


def test_client_that_says_so_has_left() -> None:
    """Null with the clock it has, or a higher one."""
    for clock in (1, 2):
        presence = Presence()
        presence.tell(_ALICE, [_entry(1)], 0)
        assert presence.tell(_ALICE, [_entry(clock, state=_GONE)], 1) == [_entry(clock, state=_GONE)]
        assert presence.entries == []


def test_nobody_speaks_for_somebody_else() -> None:
    """A client id belongs to the connection that has announced it: others repeat what they hear."""
    presence = Presence()
    presence.tell(_ALICE, [_entry(1)], 0)
    presence.tell(_BOB, [_entry(1, client=8)], 0)
    assert presence.tell(_BOB, [_entry(5, state='{"user":{"name":"b"}}'), _entry(6, state=_GONE)], 1) == []
    assert _entry(1) in presence.entries


def test_connection_that_comes_back_is_not_seen_to_leave() -> None:
    """With the same clock, over another connection, within a moment."""
    presence = Presence()
    presence.tell(_ALICE, [_entry(3)], 0)
    presence.leave(_ALICE, 1)
    assert presence.tell(_BOB, [_entry(3)], 2) == [_entry(3)]
    assert presence.sweep(10) == []
    assert presence.local == [_entry(3)]


def test_connection_that_stays_away_has_left() -> None:
    """After a moment, and an echo of others does not bring it back."""
    presence = Presence()
    presence.tell(_BOB, [_entry(1, client=8)], 0)
    presence.tell(_ALICE, [_entry(3)], 0)
    presence.leave(_ALICE, 1)
    assert presence.sweep(2) == []
    assert presence.sweep(3.5) == [_entry(3, state=_GONE)]
    assert presence.tell(_BOB, [_entry(3)], 4) == []
    assert presence.tell(_ALICE, [_entry(4)], 5) == [_entry(4)]


def test_silent_client_has_left() -> None:
    """Of whom nothing was heard for 32 s, here or elsewhere."""
    presence = Presence()
    presence.tell(_ALICE, [_entry(1)], 0)
    presence.hear(_AWAY, [_entry(1, client=8)], 5)
    assert presence.sweep(31) == []
    assert presence.sweep(33) == [_entry(1, state=_GONE)]
    assert presence.hear(_AWAY, [_entry(1, client=8)], 34) == []
    assert presence.sweep(60) == []
    assert presence.sweep(70) == [_entry(1, client=8, state=_GONE)]


def test_other_process_does_not_speak_for_who_is_connected_here() -> None:
    """What it says of them is older than what they say themselves."""
    presence = Presence()
    presence.tell(_ALICE, [_entry(1)], 0)
    assert presence.hear(_AWAY, [_entry(9), _entry(9, state=_GONE)], 1) == []
    assert presence.entries == [_entry(1)]


def test_client_of_a_dead_process_is_known_again_at_once() -> None:
    """Its first word over its new connection is about itself, even with the clock that is known."""
    presence = Presence()
    presence.hear(_AWAY, [_entry(4)], 0)
    assert presence.tell(_ALICE, [_entry(4)], 1) == [_entry(4)]
    assert presence.local == [_entry(4)]


def test_connection_announces_at_most_sixteen() -> None:
    """Tabs of one browser may share a connection; a crowd may not."""
    presence = Presence()
    assert len(presence.tell(_ALICE, [_entry(1, client=client) for client in range(40)], 0)) == 16


@pytest.mark.parametrize(
    "state", ["", "{", "[]", "1", '"a"', "true", "{}x", '{"a":' * 5_000, '{"a":"' + "x" * 20_000 + '"}']
)
def test_state_is_a_json_object(state: str) -> None:
    """Anything else is refused, and nobody is told."""
    presence = Presence()
    with pytest.raises(Malformed):
        presence.tell(_ALICE, [_entry(1, state=state)], 0)
    assert presence.entries == []
