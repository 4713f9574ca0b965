"""A run that a worker has claimed, with its journal, and a test in the place of the loop."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple
from uuid import UUID

from common.config import Settings
from common.eventlog.log import EventLog
from common.ids import new_tool_call_id
from common.model.events import Event, Started
from common.model.messages import ToolCallRequest, Usage
from common.model.run_state import Effect, FinishReason
from common.model.steps import LedgerCall, NewStep, PlannedCall, StepOutput
from common.settle import Completed
from common.store.database import Pool
from tests.support.eventually import eventually
from tests.support.seed import Seeded, seed_run
from tests.support.worker_life import claim_lease, told
from worker.run.journal import Journal, begin_attempt, open_attempt
from worker.run.lease import Lease
from worker.run.observer import Observer
from worker.run.sink import Sink

USAGE = Usage(input_tokens=10, output_tokens=5)


class LiveRun(NamedTuple):
    """Its row, who owns it, what it commits and tells."""

    seeded: Seeded
    lease: Lease
    journal: Journal
    sink: Sink
    log: EventLog

    async def commit_call(self) -> LedgerCall:
        """A first step that calls one tool; the call."""
        [call] = await self.journal.commit_step(step_with_calls(await self.journal.begin_model_call(1, 10), 1))
        return call

    async def complete(self) -> list[Event]:
        """Ends the run; all that it has told."""
        await self.journal.settle(Completed(FinishReason.STOP))
        assert await self.sink.drain(5)
        return await told(self.log, self.seeded.run.id)


@asynccontextmanager
async def live_run(settings: Settings, pool: Pool, log: EventLog) -> AsyncIterator[LiveRun]:
    """A queued run, claimed and opened; left as it is at the end."""
    seeded = await seed_run(pool)
    lease = await claim_lease(pool, settings.lease_s)
    opening = await open_attempt(pool, lease)

    async def raise_attempt(attempt: int) -> int:
        return await begin_attempt(pool, lease, attempt)

    started = Started(
        run_id=seeded.run.id,
        conversation_id=seeded.conversation_id,
        trigger_message_id=seeded.run.trigger_message_id,
        provider=seeded.run.provider,
        model=seeded.run.model,
        attempt=lease.attempt,
        messages=[],
    )
    sink = Sink(log, started, lock=lease.lock, raise_attempt=raise_attempt, on_lost=lease.on_lost)
    sink.open()
    observer = Observer(opening.spec, lease.claimed_at, {})
    await eventually(lambda: log.head(seeded.run.id))
    try:
        yield LiveRun(seeded, lease, Journal(pool, lease, sink, opening.spec, observer), sink, log)
    finally:
        await sink.close()
        lease.release()


def step_with_calls(model_call_id: UUID, count: int) -> NewStep:
    """A first step that says something and calls a tool `count` times."""
    planned = [
        PlannedCall(
            id=new_tool_call_id(),
            name="look",
            arguments={"word": str(number)},
            invalid=None,
            provider_call_id=f"call_{number}",
            effect=Effect.READ,
        )
        for number in range(count)
    ]
    return NewStep(
        index=1,
        model_call_id=model_call_id,
        output=StepOutput(
            content="let me look",
            reasoning=None,
            tool_calls=[ToolCallRequest(tool_call_id=c.id, name=c.name, arguments=c.arguments) for c in planned],
            provider_data=None,
            usage=USAGE,
        ),
        calls=planned,
        finish_reason=None if planned else FinishReason.STOP,
        first_token_age_s=0.1,
    )
