"""Who has a document open, here and elsewhere, and how all of them are told something."""

import asyncio
from collections.abc import Callable

from api.collaboration import messages
from api.collaboration.member import Member
from api.collaboration.messages import Entry
from api.collaboration.outbox import Close
from api.collaboration.presence import Presence
from common.documents.channel import Kind, Note

_KEEP_ALIVE_S = 10.0
_TELL_EVERY_S = 0.03
_VISIT_S = 10.0
"""How long an agent is shown after its last call."""


class Lobby:
    """The members of a room. `publish` tells other processes."""

    def __init__(self, publish: Callable[[Kind, bytes], None]) -> None:
        self._publish = publish
        self._presence = Presence()
        self._now = asyncio.get_running_loop().time
        self._untold: dict[int, Entry] = {}
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
        if member in self.members:
            self._tell(self._presence.tell(member, entries, self._now()))

    def hear(self, note: Note) -> None:
        """What another process says of it, or asks. Raises Malformed."""
        match note.kind:
            case Kind.QUERY:
                self._publish(Kind.AWARENESS, messages.write_entries(self._presence.local))
            case Kind.AWARENESS:
                self._cast_presence(self._presence.hear(note.sender, messages.read_entries(note.payload), self._now()))
            case Kind.VISIT:
                entries = messages.read_entries(note.payload)
                self._cast_presence(self._presence.hear(note.sender, entries, self._now(), _VISIT_S))
            case _:
                pass

    def introduce(self, member: Member) -> None:
        """Tells a member who is there."""
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

    def _tell(self, entries: list[Entry]) -> None:
        """Everybody, here and elsewhere, soon: y-websocket takes the echo of its own for a sign of life.

        What changes again within the moment is told once: each change of one member goes to all of them.
        """
        self._untold.update((entry.client, entry) for entry in entries)
        if self._untold and self._telling is None:
            self._telling = asyncio.get_running_loop().call_later(
                max(0.0, self._told_at + _TELL_EVERY_S - self._now()), self._tell_now
            )

    def _tell_now(self) -> None:
        self._telling = None
        self._told_at = self._now()
        entries = list(self._untold.values())
        self._untold.clear()
        self._publish(Kind.AWARENESS, messages.write_entries(entries))
        self._cast_presence(entries)

    def _cast_presence(self, entries: list[Entry]) -> None:
        if entries:
            self.cast(messages.tell_presence(entries))
