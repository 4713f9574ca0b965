"""A room: one open document in this process, for everybody who has it open here.

One task does everything in order. It can be thrown away at any time: nothing is broadcast before it is committed, and
clients that reconnect say what the server lacks. So on any doubt it ends, and the next one is made from Postgres.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple
from uuid import UUID

import structlog

from api.collaboration import messages
from api.collaboration.budgets import Budgets
from api.collaboration.fan_out import FanOut
from api.collaboration.inbox import Inbox, InboxClosed
from api.collaboration.items import Asked, Changed, Item, Joined, Missed, Rested, Told
from api.collaboration.lobby import Lobby
from api.collaboration.member import Member
from api.collaboration.outbox import Close
from api.collaboration.sequence import Sequence
from api.collaboration.storage import NO_DOCUMENT, Gone, Storage
from common.documents.channel import Kind, Note
from common.documents.kinds import KINDS
from common.documents.lib0 import Malformed
from common.documents.live import Broken, Full, Incomplete, LiveDocument, Taken, wide_characters
from common.documents.replica import merge
from common.documents.update_scan import Scan, scan_update, split_deletions
from common.store.database import DATABASE_DOWN
from common.store.document_log import Actor, Update

_BATCH = 512
_GAP_S = 0.25
"""Processes may publish in another order than they have committed in: what is missing is often on its way."""

_log = structlog.get_logger(__name__)


class _Pending(NamedTuple):
    """What a member has changed here, not committed yet."""

    member: Member
    taken: Taken


class Room:
    """`on_end` is called once, when the room is over."""

    def __init__(self, storage: Storage, fan_out: FanOut, on_end: Callable[["Room"], None]) -> None:
        self.storage = storage
        self.document_id: UUID = storage.document_id
        self.lobby = Lobby(partial(fan_out.publish, self.document_id))
        self.has_long_tail = False
        """Whether a snapshot is due."""
        self._text_seq = 0
        self._fan_out = fan_out
        self._on_end = on_end
        self._inbox: Inbox[Item] = Inbox()
        self._missed = False
        self._is_doubtful = False
        self._budgets = Budgets()
        self._gap_timer: asyncio.TimerHandle | None = None
        self._pending: list[_Pending] = []
        self._clients: set[int] = set()
        self._sequence = Sequence(0)
        self._opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._end: tuple[Close, str] | None = None
        # In a context of its own: whoever opens a document first is not whom all that happens in it is logged for.
        self._task = asyncio.create_task(self._run(), name=f"room {self.document_id}", context=Context())

    @property
    def seq(self) -> int:
        """The log is here up to this number."""
        return self._sequence.seq

    @property
    def is_idle(self) -> bool:
        """Whether there is nobody, and nothing to do."""
        return self._opened.done() and not self.lobby.members and self._inbox.is_empty

    async def enter(self, member: Member) -> None:
        """Lets somebody in once the document is there; where the room ends before that, the member is told why."""
        await asyncio.shield(self._opened)
        if self._end is not None:
            member.outbox.close(*self._end)
            return
        self.lobby.enter(member)
        await self.submit(Joined(member))

    async def submit(self, item: Item, size: int = 0) -> None:
        """Gives the room something to do, and waits while it has too much; nothing happens once it is over."""
        with suppress(InboxClosed):  # Its members were sent away.
            await self._inbox.put(item, size)

    def hear(self, note: Note) -> None:
        """What another process says."""
        match note.kind:
            case Kind.UPDATE:
                self._offer(Told(note.seq, note.payload), len(note.payload))
            case Kind.DELETED:
                self.end(Close.NOT_FOUND, "the document was deleted")
            case _:
                self.lobby.hear(note)

    def look(self) -> None:
        """Looks for what was missed, soon."""
        self._offer(Missed())

    async def write_text(self) -> None:
        """Lets lists and searches see what is committed, if that is newer. Raises one of DATABASE_DOWN."""
        if not self._opened.done() or self.seq <= self._text_seq:
            return
        answer: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()
        await self.submit(Rested(answer))
        waited: list[asyncio.Future[Any]] = [answer, self._task]
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            seq, text = answer.result()
            await self.storage.write_text(seq, text)
            self._text_seq = seq

    def end(self, code: Close, reason: str) -> None:
        """Ends the room: everybody is sent away with `code`, and may come back."""
        if self._end is not None:
            return
        self._end = code, reason
        self._inbox.close()
        self._task.cancel()
        self._settle_gap()
        self.lobby.dismiss(code, reason)
        if not self._opened.done():
            self._opened.set_result(None)
        self._on_end(self)

    # The room's own task ---------------------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            await self._fan_out.join(self.document_id)  # Before the log is read: nothing falls between the two.
            await self._load()
            try:
                self._fan_out.publish(self.document_id, Kind.QUERY)
                self._opened.set_result(None)
                while True:
                    for item in await self._inbox.take(_BATCH):
                        await self._do(item)
                    await self._commit_pending()
                    await self._catch_up_if_missed()
            finally:
                self._document.close()
        except Gone:
            self.end(Close.NOT_FOUND, NO_DOCUMENT)
        except DATABASE_DOWN as error:
            _log.warning("room_ended", document_id=str(self.document_id), error=repr(error))
        except Exception:
            _log.exception("room_broke", document_id=str(self.document_id))
        finally:
            self.end(Close.TRY_AGAIN, "try again")  # After a panic of the library, which is no Exception, as well.

    async def _load(self) -> None:
        stored = await self.storage.load()
        self.kind = KINDS[stored.kind]
        wide = await asyncio.to_thread(wide_characters, self.kind, stored.parts)
        self._document = LiveDocument(self.kind, stored.parts, wide)
        self._sequence.jump(stored.head_seq)
        self._text_seq = stored.text_seq

    async def _do(self, item: Item) -> None:
        match item:
            case Changed(member, update, scan, answers):
                if answers:
                    member.has_answered()
                await self._take(member, update, scan)
            case Told(seq, update):
                await self._commit_pending()
                self._hold(seq, update)
            case Missed():
                self._missed = True
            case Joined(member):
                await self._commit_pending()
                if member.can_write:
                    member.ask(self._document.state)
                self.lobby.introduce(member)
            case Asked(member, state):
                await self._commit_pending()
                self._answer(member, state)
                await asyncio.sleep(0)  # The answer may be a whole document.
            case Rested(answer):
                await self._commit_pending()
                answer.set_result((self.seq, self._document.text))

    async def _take(self, member: Member, update: bytes, scan: Scan) -> None:
        pieces = split_deletions(update, scan)
        for piece in pieces:
            if len(pieces) > 1:
                await asyncio.sleep(0)
                scan = scan_update(piece, self.kind)
            if not member.outbox.is_closing:
                await self._take_piece(member, piece, scan)

    async def _take_piece(self, member: Member, update: bytes, scan: Scan) -> None:
        began = time.perf_counter()
        try:
            taken = self._document.take(update, scan)
        except Incomplete:
            if not member.ask(self._document.state):
                member.outbox.close(Close.MALFORMED, "an update needs what nobody has")
        except Malformed as error:
            member.outbox.close(Close.MALFORMED, str(error))
        except Full as error:
            member.outbox.close(Close.TOO_LARGE, str(error))
        except Broken as error:
            _log.warning("update_broke_document", document_id=str(self.document_id), error=str(error))
            member.outbox.close(Close.MALFORMED, "a malformed update")
            await self._commit_pending()
            await self._start_over()
        else:
            if taken is not None:
                member.has_told_news()
                if not self._budgets.spend(member.principal.user, time.perf_counter() - began):
                    member.outbox.close(Close.MALFORMED, "your edits take too long")
                self._pending.append(_Pending(member, taken))

    def _answer(self, member: Member, state: bytes) -> None:
        if not member.may_ask():
            member.outbox.close(Close.MALFORMED, "you ask too often")
            return
        try:
            member.outbox.put(messages.answer_changes(self._document.update_since(state)))
        except ValueError:
            member.outbox.close(Close.MALFORMED, "a malformed state vector")

    async def _commit_pending(self) -> None:
        """Commits what is pending, and only then lets anybody else see it."""
        if not self._pending:
            return
        pending, self._pending = self._pending, []
        groups = [(member, [each.taken for each in group]) for member, group in groupby(pending, lambda p: p.member)]
        updates = [_as_update(member, taken) for member, taken in groups]
        last = await self.storage.append(updates, self._new_clients(pending))
        first = last - len(updates) + 1
        for seq, update, (member, _) in zip(range(first, last + 1), updates, groups, strict=True):
            self._fan_out.publish(self.document_id, Kind.UPDATE, update.data, seq)
            self.lobby.cast(messages.tell_change(update.data), but=member)
        self._sequence.skip(first, last)
        self._follow()

    def _new_clients(self, pending: list[_Pending]) -> dict[Actor, list[int]]:
        found: dict[Actor, list[int]] = {}
        for member, taken in pending:
            for client in taken.scan.spans.keys() - self._clients:
                self._clients.add(client)
                found.setdefault(_actor(member), []).append(client)
        return found

    def _hold(self, seq: int, update: bytes) -> None:
        if update:
            self._sequence.hold(seq, update)
            self._follow()
        elif seq > self.seq:
            self._missed = True

    def _follow(self) -> None:
        """Takes in what others have committed, as far as it is complete."""
        try:
            for update in self._sequence.take():
                self._take_in(update)
        except Broken as error:
            _log.warning("log_broke_document", document_id=str(self.document_id), error=str(error))
            self._is_doubtful = True
        if not self._sequence.has_gap:
            self._settle_gap()
        elif self._gap_timer is None:
            self._gap_timer = asyncio.get_running_loop().call_later(_GAP_S, self.look)

    def _take_in(self, update: bytes) -> None:
        taken = self._document.follow(update)
        if taken is not None:
            self.lobby.cast(messages.tell_change(taken.data))

    async def _catch_up_if_missed(self) -> None:
        while self._missed or self._is_doubtful:
            updates = None
            if not self._is_doubtful:
                self._missed = False
                self._settle_gap()
                updates = await self.storage.load_after(self.seq)
            if updates is None:
                await self._start_over()
                return
            for seq, update in updates:
                self._sequence.hold(seq, update)
            self._follow()

    async def _start_over(self) -> None:
        """Reads the document again, and tells everybody what of it was not here."""
        self._missed = self._is_doubtful = False
        self._settle_gap()
        before = self._document
        state = before.known_state
        await self._load()
        before.close()
        self.lobby.cast(messages.tell_change(self._document.update_since(state)))
        self._follow()

    def _offer(self, item: Item, size: int = 0) -> None:
        if not self._inbox.offer(item, size):
            self._missed = True

    def _settle_gap(self) -> None:
        if self._gap_timer is not None:
            self._gap_timer.cancel()
            self._gap_timer = None


def _as_update(member: Member, taken: list[Taken]) -> Update:
    data = taken[0].data if len(taken) == 1 else merge([each.data for each in taken])
    inserted, removed = sum(each.scan.inserted for each in taken), sum(each.scan.removed for each in taken)
    return Update(data, inserted, removed, _actor(member))


def _actor(member: Member) -> Actor:
    return Actor("user", member.principal.user)
