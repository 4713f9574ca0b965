"""All rooms of this process, and what they need done from time to time."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Self
from uuid import UUID

import structlog
from redis.asyncio import Redis

from api.collaboration.fan_out import FanOut
from api.collaboration.member import Member
from api.collaboration.outbox import Close
from api.collaboration.room import Room
from api.collaboration.storage import NO_DOCUMENT, Storage
from common.documents.channel import Note
from common.documents.compaction import compact
from common.store.database import DATABASE_DOWN, Pool
from common.store.document_log import poll_documents

_TICK_S = 1.0
_AUDIT_S = 5.0
_AUDIT_WITHOUT_REDIS_S = 0.5
_KEEP_UP_S = 5.0
_IDLE_S = 30.0

_log = structlog.get_logger(__name__)


class Rooms:
    """Enter it before anybody opens a document; leaving it sends everybody away."""

    def __init__(self, redis: Redis, pool: Pool) -> None:
        self._pool = pool
        self._fan_out = FanOut(redis, on_note=self._hear, on_confirmed=self._confirm)
        self._rooms: dict[UUID, Room] = {}
        self._busy = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.closing = False

    async def __aenter__(self) -> Self:
        await self._fan_out.__aenter__()
        self._tasks = [
            asyncio.create_task(self._repeat(self._tick, lambda: _TICK_S), name="documents tick"),
            asyncio.create_task(self._repeat(self._audit, self._audit_interval), name="documents audit"),
            asyncio.create_task(self._repeat(self._keep_up, lambda: _KEEP_UP_S), name="documents upkeep"),
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.dismiss()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._fan_out.__aexit__()

    def __len__(self) -> int:
        return len(self._rooms)

    @property
    def members(self) -> int:
        """Connections to all of them."""
        return sum(len(room.lobby.members) for room in self._rooms.values())

    def dismiss(self) -> None:
        """Ends all rooms, and opens no more: this process is about to stop."""
        self.closing = True
        for room in list(self._rooms.values()):
            room.end(Close.STOPPING, "this server is about to stop")

    async def enter(self, workspace_id: UUID, document_id: UUID, member: Member) -> Room | None:
        """The room of a document, with the member in it, or sent away with a reason."""
        if self.closing:
            member.outbox.close(Close.STOPPING, "this server is about to stop")
            return None
        room = self._rooms.get(document_id)
        if room is None:
            room = Room(Storage(self._pool, workspace_id, document_id), self._fan_out, self._forget)
            self._rooms[document_id] = room
            self._busy.set()
        elif room.storage.workspace_id != workspace_id:
            member.outbox.close(Close.NOT_FOUND, NO_DOCUMENT)
            return None
        await room.enter(member)
        return room

    def _forget(self, room: Room) -> None:
        if self._rooms.get(room.document_id) is room:
            del self._rooms[room.document_id]
            self._fan_out.leave(room.document_id)
            if not self._rooms:
                self._busy.clear()

    def _hear(self, document_id: UUID, note: Note) -> None:
        if (room := self._rooms.get(document_id)) is not None:
            room.hear(note)

    def _confirm(self, document_id: UUID) -> None:
        if (room := self._rooms.get(document_id)) is not None:
            room.look()

    def _audit_interval(self) -> float:
        return _AUDIT_S if self._fan_out.connected else _AUDIT_WITHOUT_REDIS_S

    async def _repeat(self, duty: Callable[[], Awaitable[None]], interval_s: Callable[[], float]) -> None:
        while True:
            await self._busy.wait()
            await asyncio.sleep(interval_s())
            try:
                await duty()
            except DATABASE_DOWN as error:
                _log.warning("documents_audit_failed", error=repr(error))
            except Exception:
                # Without it what was lost on the way would never be found.
                _log.exception("documents_audit_broke")

    async def _tick(self) -> None:
        for room in self._rooms.values():
            room.lobby.tick()

    async def _audit(self) -> None:
        """One look at where all open documents stand: the only cure for a message that was lost as the last one."""
        rooms = dict(self._rooms)
        asked = [(room.storage.workspace_id, document_id) for document_id, room in rooms.items()]
        positions = {position.document_id: position for position in await poll_documents(self._pool, asked)}
        for document_id, room in rooms.items():
            position = positions.get(document_id)
            if position is None or position.is_deleted:
                room.end(Close.NOT_FOUND, NO_DOCUMENT)
                continue
            room.has_long_tail = position.has_long_tail
            if position.head_seq > room.seq:
                room.look()

    async def _keep_up(self) -> None:
        """Makes snapshots and what searches see, and closes rooms where nobody has been for a while."""
        now = asyncio.get_running_loop().time()
        for room in list(self._rooms.values()):
            try:
                await self._write_down(room)
            except DATABASE_DOWN:
                raise
            except Exception:
                # One document that cannot be written down must not keep the others from it.
                _log.exception("document_upkeep_broke", document_id=str(room.document_id))
            if room.is_idle and now - room.lobby.empty_since > _IDLE_S:
                room.end(Close.STOPPING, "nobody is here")

    async def _write_down(self, room: Room) -> None:
        if room.has_long_tail:
            room.has_long_tail = False
            await compact(self._pool, room.storage.workspace_id, room.document_id)
        await room.write_text()
