"""What is to be told after a commit. Every bit of it may be lost: Postgres has it, and others look there."""

import asyncio
from dataclasses import dataclass, field
from uuid import UUID

import structlog

from api.resources import Resources
from common.eventlog.signals import publish_cancel
from common.failpoints import failpoint
from common.model.run_state import CancelReason, RunState
from common.redis import REDIS_DOWN
from common.settle import CancelledBy, Settled, count_end, settle_within, tell_end
from common.store.database import Connection
from common.store.run_transitions import DueRun, request_cancel

_PATIENCE_S = 1.0

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Aftermath:
    """Collected inside a transaction, carried out once it is committed."""

    due: list[DueRun] = field(default_factory=list)
    """Runs to ring for."""
    cancelled: list[UUID] = field(default_factory=list)
    """Runs that a worker is to stop."""
    ended: list[Settled] = field(default_factory=list)
    """Runs that ended here, whose log is to say so."""

    async def cancel(
        self, connection: Connection, run_id: UUID, reason: CancelReason, *, promote: bool
    ) -> RunState | None:
        """Ends the run on the spot if nobody runs it, else notes the request; its state before that.

        The caller holds the conversation's lock. `promote` lets the conversation's next run begin.
        """
        state = await request_cancel(connection, run_id, reason)
        if state is RunState.RUNNING:
            self.cancelled.append(run_id)
        elif state is not None and not state.is_terminal:
            settled = await settle_within(connection, run_id, CancelledBy(reason), by="api", promote=promote)
            if settled is not None:
                self.ended.append(settled)
                if settled.promoted is not None:
                    self.due.append(settled.promoted)
        return state

    async def carry_out(self, resources: Resources) -> None:
        """Rings, signals, and tells the logs. A Redis that is down, or silent, holds up nobody for long."""
        for _ in self.ended:
            count_end(CancelledBy())
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await self._tell(resources)
        except (*REDIS_DOWN, TimeoutError) as error:
            _log.warning("signal_not_sent", error=type(error).__name__)

    async def _tell(self, resources: Resources) -> None:
        """All at once: the queue may have a Redis of its own, and nobody waits for another's."""
        parts = [
            part(resources)
            for part, told in ((self._ring, self.due), (self._signal, self.cancelled), (self._tell_ends, self.ended))
            if told
        ]
        if len(parts) == 1:
            await parts[0]
            return
        for failure in await asyncio.gather(*parts, return_exceptions=True):
            if failure is not None:
                raise failure

    async def _ring(self, resources: Resources) -> None:
        for due in self.due:
            await resources.bell.ring(due.run_id, due.priority)

    async def _signal(self, resources: Resources) -> None:
        for run_id in self.cancelled:
            await failpoint("signal.before")
            await publish_cancel(resources.redis, run_id)

    async def _tell_ends(self, resources: Resources) -> None:
        for end in self.ended:
            await tell_end(resources.log, end)
