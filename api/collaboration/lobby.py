"""Who has a document open, here and elsewhere, and how all of them are told something."""

import asyncio
from collections.abc import Callable

from api.collaboration import messages
from api.collaboration.member import Member
from api.collaboration.outbox import Close
from api.collaboration.presence import Presence
from common.documents.awareness import Entry, Present, read_present, write_present
from common.documents.channel import Kind, Note

_KEEP_ALIVE_S = 10.0
_TELL_EVERY_S = 0.03
_BEGINNING = 2
_PRESENT_PER_NOTE = 32
_VISIT_S = 10.0
"""How long an agent is shown after its last call."""


class Lobby:
    """The members of a room. `publish` tells other processes."""

    def __init__(self, publish: Callable[[Kind, bytes], None]) -> None:
        self._publish = publish
        self._presence = Presence()
        self._now = asyncio.get_running_loop().time
        self._untold: dict[int, Present] = {}
        self._telling: asyncio.TimerHandle | None = None
        self._told_at = 0.0
        self.members: set[Member] = set()
        self.empty_since = self._now()

    def enter(self, member: Member) -> None:
        """Somebody has come."""
        self.members.add(member)

    def leave(self, member: Member) -> None:
        """Somebody has gone, and with them whom they have announced."""
        self.members.discard(member)
        if not self.members:
            self.empty_since = self._now()
        self._presence.leave(member, self._now())

    def announce(self, member: Member, entries: list[Entry]) -> None:
        """What a member says of who is there. Raises Malformed."""
        if member not in self.members:
            return
        # y-websocket begins with a question and with itself; what it repeats of others comes after our own question.
        first = member.messages <= _BEGINNING
        answer = self._presence.tell(member, member.principal.user, entries, self._now(), first=first)
        if answer.bounced:
            member.outbox.put(messages.tell_presence(answer.bounced))
        self._tell(answer.news)

    def hear(self, note: Note) -> None:
        """What another process says of it, or asks. Raises Malformed."""
        match note.kind:
            case Kind.QUERY:
                self._publish_presence(self._presence.local)
            case Kind.AWARENESS:
                self._cast_presence(self._presence.hear(note.sender, read_present(note.payload), self._now()))
            case Kind.VISIT:
                told = read_present(note.payload)
                self._cast_presence(self._presence.hear(note.sender, told, self._now(), _VISIT_S))
            case _:
                pass

    def introduce(self, member: Member) -> None:
        """Tells a member who is there, and from here on who comes and goes."""
        member.is_introduced = True
        if entries := self._presence.entries:
            member.outbox.put(messages.tell_presence(entries))

    def cast(self, message: bytes, but: Member | None = None) -> None:
        """Sends it to everybody but one."""
        for member in self.members:
            if member is not but:
                member.outbox.put(message)

    def tick(self) -> None:
        """Forgets who was silent for too long, and keeps silent connections open."""
        now = self._now()
        self._tell(self._presence.sweep(now))
        for member in self.members:
            if now - member.outbox.sent_at > _KEEP_ALIVE_S:
                member.outbox.put(messages.KEEP_ALIVE)

    def dismiss(self, code: Close, reason: str) -> None:
        """Closes everybody's connection."""
        for member in self.members:
            member.outbox.close(code, reason)
        self.members.clear()

    def _tell(self, news: list[Present]) -> None:
        """Everybody, here and elsewhere, soon: y-websocket takes the echo of its own for a sign of life.

        What changes again within the moment is told once: each change of one member goes to all of them.
        """
        self._untold.update((present.entry.client, present) for present in news)
        if self._untold and self._telling is None:
            self._telling = asyncio.get_running_loop().call_later(
                max(0.0, self._told_at + _TELL_EVERY_S - self._now()), self._tell_now
            )

    def _tell_now(self) -> None:
        self._telling = None
        self._told_at = self._now()
        news = list(self._untold.values())
        self._untold.clear()
        self._publish_presence(news)
        self._cast_presence(news)

    def _publish_presence(self, present: list[Present]) -> None:
        for start in range(0, len(present), _PRESENT_PER_NOTE):
            self._publish(Kind.AWARENESS, write_present(present[start : start + _PRESENT_PER_NOTE]))

    def _cast_presence(self, news: list[Present]) -> None:
        if not news:
            return
        message = messages.tell_presence(present.entry for present in news)
        for member in self.members:
            if member.is_introduced:  # Before that a client has not been asked anything, and what it says is its own.
                member.outbox.put(message)
