"""A room by itself, between a store and a Redis that do as they are told."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from pycrdt import Doc, Text

from api.auth import Principal, WorkspaceRole
from api.collaboration.fan_out import FanOut
from api.collaboration.items import Asked, Changed
from api.collaboration.member import Member
from api.collaboration.messages import AskChanges, Changes, read_message
from api.collaboration.outbox import Close, Outbox
from api.collaboration.room import Room
from api.collaboration.storage import Gone, Storage
from common.documents.channel import Kind, Note
from common.documents.kinds import MARKDOWN
from common.documents.update_scan import scan_update
from common.ids import new_id
from common.store.document_log import EMPTY, Stored, Update
from tests.support.eventually import eventually


class _Store:
    """Commits once it `flows`; `failure` is raised instead."""

    def __init__(self) -> None:
        self.document_id, self.workspace_id = new_id(), new_id()
        self.log: list[bytes] = []
        self.flows = asyncio.Event()
        self.flows.set()
        self.is_committing = False
        self.failure: Exception | None = None

    async def load(self) -> Stored:
        if self.failure is not None:
            raise self.failure
        return Stored(MARKDOWN.name, len(self.log), [EMPTY, *self.log])

    async def load_after(self, seq: int) -> list[tuple[int, bytes]]:
        return list(enumerate(self.log, 1))[seq:]

    async def append(self, updates: list[Update], _: Any) -> int:
        self.is_committing = True
        await self.flows.wait()
        if self.failure is not None:
            raise self.failure
        self.log += [update.data for update in updates]
        return len(self.log)


class _Wires:
    """What goes to the other processes."""

    def __init__(self) -> None:
        self.published: list[tuple[Kind, int]] = []

    async def join(self, _: Any) -> None:
        pass

    def publish(self, _: Any, kind: Kind, payload: bytes = b"", seq: int = 0) -> None:
        self.published.append((kind, seq))


class _Someone:
    """A member, and what it was sent."""

    def __init__(self, client: int) -> None:
        self.sent: list[bytes] = []
        self.closed: int | None = None
        outbox = Outbox(self._send, self._close, lambda: None)
        self._sending = asyncio.create_task(outbox.run())
        principal = Principal(f"user {client}", new_id(), WorkspaceRole.MEMBER, datetime.now(UTC))
        self.member = Member(principal, outbox)
        self.doc: Doc[Text] = Doc(client_id=client)
        self.content: Text = self.doc.get("content", type=Text)

    @property
    def told(self) -> list[Changes]:
        return [message for data in self.sent if isinstance(message := read_message(data), Changes)]

    def typed(self, text: str) -> Changed:
        """A change that this types, as the room gets it."""
        before = self.doc.get_state()
        self.content.insert(len(str(self.content)), text)
        update = self.doc.get_update(before)
        return Changed(self.member, update, scan_update(update, MARKDOWN), False)

    def asks(self) -> Asked:
        return Asked(self.member, b"\0")

    async def was_asked(self) -> None:
        await eventually(lambda: any(isinstance(read_message(data), AskChanges) for data in self.sent))

    async def _send(self, data: bytes) -> None:
        self.sent.append(data)

    async def _close(self, code: int, _: str) -> None:
        self.closed = code


class _Scene:
    """A room with two in it."""

    def __init__(self) -> None:
        self.store, self.wires = _Store(), _Wires()
        self.ended: list[Room] = []
        self.room = Room(cast(Storage, self.store), cast(FanOut, self.wires), self.ended.append)
        self.one, self.two = _Someone(1), _Someone(2)

    async def enter(self) -> None:
        for someone in (self.one, self.two):
            await self.room.enter(someone.member)
            await someone.was_asked()


@pytest.fixture
async def scene() -> AsyncIterator[_Scene]:
    """Everybody is in."""
    scene = _Scene()
    await scene.enter()
    yield scene
    scene.room.end(Close.STOPPING, "over")


async def test_who_asks_is_told_what_is_committed(scene: _Scene) -> None:
    """Not what is about to be, though both have come together."""
    scene.store.flows.clear()
    await scene.room.submit(scene.one.typed("cod"))
    await scene.room.submit(scene.two.asks())
    await eventually(lambda: scene.store.is_committing)
    assert scene.two.told == []
    scene.store.flows.set()
    await eventually(lambda: len(scene.two.told) == 2)
    assert len(scene.store.log) == 1


async def test_what_cannot_be_committed_is_seen_by_nobody(scene: _Scene) -> None:
    """Everybody is sent away, and told that they may come back."""
    scene.store.failure = ConnectionError("gone")
    await scene.room.submit(scene.one.typed("cod"))
    await eventually(lambda: scene.one.closed)
    await eventually(lambda: scene.two.closed)
    assert (scene.one.closed, scene.two.closed, scene.two.told) == (4503, 4503, [])
    assert scene.ended == [scene.room]
    assert [kind for kind, _ in scene.wires.published if kind is Kind.UPDATE] == []


async def test_document_that_is_deleted_meanwhile_is_closed(scene: _Scene) -> None:
    """Found out at the next edit, where nobody has said so."""
    scene.store.failure = Gone()
    await scene.room.submit(scene.one.typed("cod"))
    await eventually(lambda: scene.two.closed)
    assert scene.two.closed == 4404


async def test_update_that_breaks_the_document_costs_only_its_sender(scene: _Scene) -> None:
    """What came before it in the same moment is committed, what comes after it goes on."""
    crossed = b"\2" + b"\1\x0b\0\x84\x0c\0\1a" + b"\1\x0c\0\x84\x0b\0\1a" + b"\0"
    for item in (
        scene.one.typed("cod"),
        Changed(scene.two.member, crossed, scan_update(crossed, MARKDOWN), False),
        scene.one.typed(" eel"),
    ):
        await scene.room.submit(item)
    await eventually(lambda: len(scene.store.log) == 2)
    await eventually(lambda: scene.two.closed)
    assert (scene.one.closed, scene.two.closed) == (None, 4400)
    three = _Someone(3)
    await scene.room.enter(three.member)
    await scene.room.submit(three.asks())
    await eventually(lambda: three.told)
    three.doc.apply_update(three.told[-1].update)
    assert str(three.content) == "cod eel"


async def test_rows_are_told_in_order_with_their_numbers(scene: _Scene) -> None:
    """What one member has changed without another between is one row."""
    scene.store.flows.clear()
    await scene.room.submit(scene.one.typed("a"))
    await eventually(lambda: scene.store.is_committing)
    for item in (scene.one.typed("b"), scene.one.typed("c"), scene.two.typed("d"), scene.one.typed("e")):
        await scene.room.submit(item)
    scene.store.flows.set()
    await eventually(lambda: len(scene.store.log) >= 3)
    updates = [seq for kind, seq in scene.wires.published if kind is Kind.UPDATE]
    assert updates == list(range(1, len(scene.store.log) + 1))
    assert len(updates) < 5


async def test_note_without_its_update_is_looked_up(scene: _Scene) -> None:
    """It was too large to be told; so is one that never came, a moment after the next one has."""
    other = _Someone(9)
    first, second = other.typed("cod"), other.typed(" eel")
    scene.store.log.append(first.update)
    scene.room.hear(Note(Kind.UPDATE, new_id(), 1, b""))
    await eventually(lambda: scene.room.seq == 1)
    third = other.typed("!")
    scene.store.log += [second.update, third.update]
    scene.room.hear(Note(Kind.UPDATE, new_id(), 3, third.update))
    await eventually(lambda: scene.room.seq == 3)
    await eventually(lambda: len(scene.one.told) == 3)
