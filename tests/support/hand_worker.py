"""A worker by hand: the real claim, commit and end of a run, at the moment that a test chooses."""

import asyncio
from typing import NoReturn
from uuid import UUID

from common.ids import EventId
from common.model.messages import Message
from common.model.run_state import CancelReason, FinishReason, RunErrorCode
from common.settle import CancelledBy, Completed, Failed, RunOutcome, Settled, settle
from common.store.database import Pool, workspace_transaction
from common.store.run_schedule import Claim, claim_runs
from common.store.steps import insert_step
from tests.support.steps import said

LEASE_S = 60


async def claim(pool: Pool) -> Claim:
    """The one run that is due."""
    [claimed] = await claim_runs(pool, "by hand", LEASE_S, 10)
    return claimed


async def commit_step(pool: Pool, claimed: Claim, text: str, step: int = 1) -> Message:
    """The run's next assistant message, as its worker commits it."""
    async with workspace_transaction(pool, claimed.workspace_id) as connection:
        message = await insert_step(connection, claimed.run_id, claimed.attempt, LEASE_S, said(step, text))
    assert message is not None
    return message


async def complete(pool: Pool, claimed: Claim) -> Settled:
    """The run's end, when all went well."""
    return await _end(pool, claimed, Completed(FinishReason.STOP))


async def obey_cancel(pool: Pool, claimed: Claim, partial_text: str | None = None) -> Settled:
    """The run's end, when its worker has seen the request; `partial_text` is what the unfinished step had said."""
    return await _end(pool, claimed, CancelledBy(CancelReason.USER, partial_text))


async def fail(
    pool: Pool, claimed: Claim, code: RunErrorCode = RunErrorCode.PROVIDER_ERROR, message: str = ""
) -> Settled:
    """The run's end, when it could not go on."""
    return await _end(pool, claimed, Failed(code, message, retryable=True))


async def answer(pool: Pool, text: str = "hello back") -> UUID:
    """The whole life of the one run that is due; its id."""
    claimed = await claim(pool)
    await commit_step(pool, claimed, text)
    await complete(pool, claimed)
    return claimed.run_id


async def answer_all(pool: Pool) -> NoReturn:
    """The whole life of every run that becomes due, until it is cancelled."""
    while True:
        for claimed in await claim_runs(pool, "by hand", LEASE_S, 10):
            await commit_step(pool, claimed, "hello back")
            await complete(pool, claimed)
        await asyncio.sleep(0.02)


async def _end(pool: Pool, claimed: Claim, outcome: RunOutcome) -> Settled:
    settled = await settle(
        pool,
        claimed.workspace_id,
        claimed.run_id,
        outcome,
        by="owner",
        attempt=claimed.attempt,
        seal=lambda _closed, _terminal: EventId(claimed.attempt, 9),
    )
    assert settled is not None
    return settled
