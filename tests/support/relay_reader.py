"""A follower in a task, and what it was told."""

import asyncio

from api.relay.batch import Batch
from api.relay.follow import Follower
from api.relay.hub import Hub, Subject
from common.eventlog.log import LogEvent
from common.ids import EventId
from common.model.events import Token, decode_event
from tests.support.eventually import eventually
from tests.support.player import Player


class Reader:
    """Follows a run in a task and keeps what it is told; what it can be told directly, it is."""

    def __init__(
        self,
        hub: Hub,
        player: Player,
        cursor: EventId | None = None,
        terminal: EventId | None = None,
        *,
        whole: bool = False,
    ) -> None:
        subject = Subject(player.workspace_id, player.id, terminal)
        self._follower = Follower(hub, subject, cursor, idle_s=15, whole=whole)
        self.events: list[LogEvent] = []
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for batches in self._follower.batches(self._take):
            for batch in batches:
                self._take(batch)

    def _take(self, batch: Batch) -> bool:
        self.events += batch.events
        return True

    @property
    def ids(self) -> list[str | None]:
        return [None if event.id is None else str(event.id) for event in self.events]

    @property
    def words(self) -> list[str]:
        decoded = [decode_event(event.data) for event in self.events]
        return [event.content if isinstance(event, Token) else type(event).__name__.lower() for event in decoded]

    async def told(self, *words: str) -> None:
        """Waits until exactly these words were told."""

        def complete() -> bool:
            assert self.words == list(words), f"told {self.words} instead of {list(words)}"
            return True

        await eventually(complete, 8)

    async def ended(self) -> list[str]:
        """Waits for the run's end; everything that was told."""
        async with asyncio.timeout(10):
            await self.task
        return self.words

    async def leave(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
