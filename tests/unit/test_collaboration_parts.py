"""What rooms are made of: the order of the log, the queue in, the queue out, the messages."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.auth import Principal, WorkspaceRole
from api.collaboration import budgets, messages
from api.collaboration.inbox import Inbox, InboxClosed
from api.collaboration.lobby import Lobby
from api.collaboration.member import Member
from api.collaboration.messages import AskChanges, AskPresence, Changes, TellPresence, read_message
from api.collaboration.outbox import Close, Outbox
from api.collaboration.sequence import Sequence
from common.documents.awareness import Entry, Present, read_present
from common.documents.channel import Kind, Note
from common.documents.lib0 import Malformed
from common.ids import new_id


@given(st.permutations(range(1, 9)), st.sets(st.integers(1, 8)))
def test_updates_are_taken_in_the_order_of_the_log(arrival: list[int], own: set[int]) -> None:
    """In whatever order they come; our own are not taken twice, and what comes again not at all."""
    sequence = Sequence(0)
    taken: list[bytes] = []
    for seq in arrival:
        if seq in own:
            sequence.skip(seq, seq)
        sequence.hold(seq, bytes([seq]))
        sequence.hold(seq, b"again")
        taken += sequence.take()
    assert taken == [bytes([seq]) for seq in range(1, 9) if seq not in own]
    assert (sequence.seq, sequence.has_gap) == (8, False)


def test_gap_is_known() -> None:
    """Until what is missing has come, or was read otherwise."""
    sequence = Sequence(3)
    sequence.hold(5, b"five")
    assert (list(sequence.take()), sequence.has_gap) == ([], True)
    sequence.jump(4)
    assert (list(sequence.take()), sequence.seq, sequence.has_gap) == ([b"five"], 5, False)


async def test_inbox_makes_who_sends_too_much_wait() -> None:
    """And lets them go on once there is room."""
    inbox: Inbox[int] = Inbox()
    await inbox.put(1, 9 * 1024 * 1024)
    assert not inbox.offer(2)
    waiting = asyncio.create_task(inbox.put(3))
    await asyncio.sleep(0)
    assert not waiting.done()
    assert await inbox.take(10) == [1]
    await waiting
    assert await inbox.take(10) == [3]


async def test_closed_inbox_keeps_nobody_waiting() -> None:
    """Who waits for room, and who comes later, are told."""
    inbox: Inbox[int] = Inbox()
    await inbox.put(1, 9 * 1024 * 1024)
    waiting = asyncio.create_task(inbox.put(2))
    await asyncio.sleep(0)
    inbox.close()
    with pytest.raises(InboxClosed):
        await waiting
    with pytest.raises(InboxClosed):
        await inbox.put(3)


class _Wire:
    """A socket whose reader may stop reading."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.closed: tuple[int, str] | None = None
        self.aborted = False
        self.flows = asyncio.Event()
        self.flows.set()
        self.outbox = Outbox(self._send, self._close, self._abort)

    async def _send(self, data: bytes) -> None:
        await self.flows.wait()
        self.sent.append(data)

    async def _close(self, code: int, reason: str) -> None:
        self.closed = code, reason

    def _abort(self) -> None:
        self.aborted = True


async def test_outbox_sends_in_order_and_closes_behind_it() -> None:
    """The first reason counts, and nothing follows it."""
    wire = _Wire()
    for message in (b"a", b"b"):
        wire.outbox.put(message)
    wire.outbox.close(Close.UNAUTHORIZED, "expired")
    wire.outbox.close(Close.TRY_AGAIN, "later")
    wire.outbox.put(b"c")
    await wire.outbox.run()
    assert (wire.sent, wire.closed) == ([b"a", b"b"], (4401, "expired"))


async def test_reader_that_is_too_slow_is_closed() -> None:
    """Not for one large message, but for what it leaves waiting behind that."""
    patient = _Wire()
    patient.outbox.put(bytes(9 * 1024 * 1024))
    assert not patient.outbox.is_closing
    wire = _Wire()
    wire.flows.clear()
    running = asyncio.create_task(wire.outbox.run())
    wire.outbox.put(bytes(9 * 1024 * 1024))
    wire.outbox.put(b"more")
    wire.flows.set()
    await running
    assert wire.closed is not None
    assert wire.closed[0] == 4508
    assert b"more" not in wire.sent


def test_messages_are_those_of_y_protocols() -> None:
    """As bytes; what is written is read back."""
    entries = [Entry(7, 2, '{"a":"😀"}'), Entry(2**53 - 1, 0, "null")]
    assert messages.tell_change(b"xy") == b"\0\2\2xy"
    assert messages.KEEP_ALIVE == b"\1\1\0"
    assert messages.refuse("no") == b"\2\0\2no"
    assert read_message(messages.ask_changes(b"\1\7\3")) == AskChanges(b"\1\7\3")
    assert read_message(messages.answer_changes(b"\0\0")) == Changes(b"\0\0", answers=True)
    assert read_message(messages.tell_change(b"\0\0")) == Changes(b"\0\0")
    assert read_message(messages.tell_presence(entries)) == TellPresence(entries)
    assert read_message(b"\3") == AskPresence()


@given(st.binary(max_size=40))
def test_no_bytes_are_more_than_malformed(data: bytes) -> None:
    """Whatever somebody sends is a message, or refused as what it is."""
    with suppress(Malformed):
        read_message(data)


def test_user_has_two_seconds_which_come_back_with_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each for themselves."""
    now = 0.0
    monkeypatch.setattr("api.collaboration.budgets.time.monotonic", lambda: now)
    spent = budgets.Budgets()
    assert spent.spend("alice", 1.5)
    assert not spent.spend("alice", 1.0)
    assert spent.spend("bob", 1.5)
    now = 15.0
    assert spent.spend("alice", 0.9)
    assert not spent.spend("alice", 0.2)


async def test_crowd_is_told_to_other_processes_in_pieces() -> None:
    """A note that holds everybody's states could be too large to be told."""
    notes: list[bytes] = []
    there, here = (Lobby(lambda _, payload: notes.append(payload)) for _ in range(2))
    crowd = [Present(Entry(client, 1, "{}"), "alice") for client in range(100)]
    wires = [_Wire() for _ in range(7)]
    for number, wire in enumerate(wires):
        member = Member(Principal("alice", new_id(), WorkspaceRole.MEMBER, datetime.now(UTC)), wire.outbox)
        there.enter(member)
        there.announce(member, [entry for entry, _ in crowd[number * 15 : number * 15 + 15]])
    there.hear(Note(Kind.QUERY, new_id()))
    assert [len(read_present(note)) for note in notes] == [32, 32, 32, 4]
    for note in notes:
        here.hear(Note(Kind.AWARENESS, new_id(), 0, note))
    here.hear(Note(Kind.QUERY, new_id()))
    assert len(notes) == 4  # of others nobody tells
