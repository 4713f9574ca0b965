"""Plays the worker of a run: real rows, real events, one call at a time."""

from typing import Self
from uuid import UUID

from common.eventlog.log import AppendResult, Batch, EventLog
from common.ids import EventId
from common.model.events import Event, Step, Token, encode_event
from common.model.messages import Run, for_event
from common.model.run_state import FinishReason
from common.settle import Completed, settle
from common.store.database import Pool, workspace_transaction
from common.store.run_events import select_started
from common.store.run_schedule import claim_runs
from common.store.run_transitions import raise_attempt
from common.store.steps import insert_step
from tests.support.seed import seed_run
from tests.support.steps import said


class Player:
    """One run of a conversation of its own, queued at first."""

    def __init__(self, pool: Pool, log: EventLog, workspace_id: UUID, run: Run) -> None:
        self._pool = pool
        self._log = log
        self.workspace_id = workspace_id
        self.run = run
        self.attempt = self._claimed_attempt = 0
        self.n = self._steps = 0

    @classmethod
    async def queue(
        cls, pool: Pool, log: EventLog, workspace_id: UUID | None = None, conversation_id: UUID | None = None
    ) -> Self:
        """A queued run, of which the log knows nothing."""
        seeded = await seed_run(pool, workspace_id=workspace_id, conversation_id=conversation_id)
        return cls(pool, log, seeded.workspace_id, seeded.run)

    @classmethod
    async def begin(
        cls, pool: Pool, log: EventLog, workspace_id: UUID | None = None, conversation_id: UUID | None = None
    ) -> Self:
        """A running run whose log holds `started`."""
        player = await cls.queue(pool, log, workspace_id, conversation_id)
        await player.start()
        return player

    async def start(self) -> None:
        """Claims the run and opens its first attempt."""
        claims = await claim_runs(self._pool, "player", 60, 100)
        self.attempt = self._claimed_attempt = next(claim.attempt for claim in claims if claim.run_id == self.id)
        await self.open_attempt()

    async def start_again(self) -> None:
        """Raises the attempt, as an owner does whose log was lost."""
        async with workspace_transaction(self._pool, self.workspace_id) as connection:
            self.attempt = await raise_attempt(connection, self.id, self.attempt, self._claimed_attempt, 60)
        await self.open_attempt()

    async def open_attempt(self) -> None:
        """Appends `started` with what the run has committed, as the attempt's first event."""
        self.n = 0
        async with workspace_transaction(self._pool, self.workspace_id) as connection:
            started = await select_started(connection, self.id, self.attempt)
        assert started is not None
        await self._append(started)

    async def commit_step(self, content: str) -> None:
        """Stores a step of the run and appends it."""
        self._steps += 1
        step = said(self._steps, content)
        async with workspace_transaction(self._pool, self.workspace_id) as connection:
            message = await insert_step(connection, self.id, self.attempt, 60, step)
        assert message is not None
        await self.append(Step(index=step.index, message=for_event(message), usage=step.output.usage))

    async def tell(self, *words: str) -> None:
        """Appends a batch of tokens."""
        await self.append(*(Token(content=word) for word in words))

    async def append(self, *events: Event) -> None:
        """Appends a batch; what is not accepted fails the test."""
        await self._append(*(encode_event(event) for event in events))

    async def _append(self, *events: bytes) -> None:
        result = await self._log.append(self.id, Batch(self.attempt, self.n + 1, events))
        assert result is AppendResult.OK, result
        self.n += len(events)

    async def end(self, *, tell_log: bool = True) -> EventId:
        """Settles the run as completed and appends `done`, or leaves the latter out. The id of `done`."""
        settled = await settle(
            self._pool,
            self.workspace_id,
            self.id,
            Completed(FinishReason.STOP),
            by="owner",
            attempt=self.attempt,
            seal=lambda _calls, _terminal: EventId(self.attempt, self.n + 1),
        )
        assert settled is not None
        if tell_log:
            batch = Batch(self.attempt, self.n + 1, (settled.terminal,))
            assert await self._log.append(self.id, batch) is AppendResult.OK
        self.n += 1
        return settled.event_id

    @property
    def id(self) -> UUID:
        return self.run.id
