"""The ledger of tool calls: what was asked, what was begun, how it came out."""

from uuid import UUID

from common.model.run_state import Effect, Outcome
from common.model.steps import LedgerCall
from common.store.database import Connection

_COLUMNS = "id, run_id, message_id, step, index, name, arguments, invalid, provider_call_id, effect, state"


async def insert_tool_calls(connection: Connection, calls: list[LedgerCall]) -> None:
    """The calls of a step, all `pending`, in the step's own transaction."""
    await connection.executemany(
        """
        insert into tool_calls (workspace_id, id, run_id, message_id, step, index, name, arguments, invalid,
                                provider_call_id, effect)
        values (current_workspace(), $1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
        """,
        [
            (
                call.id,
                call.run_id,
                call.message_id,
                call.step,
                call.index,
                call.name,
                call.arguments,
                call.invalid,
                call.provider_call_id,
                call.effect,
            )
            for call in calls
        ],
    )


async def select_open_calls(connection: Connection, run_id: UUID) -> list[LedgerCall]:
    """The calls of the run that have no result yet, in the model's order."""
    rows = await connection.fetch(
        f"select {_COLUMNS} from tool_calls where run_id = $1 and state <> 'finished' order by step, index",
        run_id,
    )
    return [LedgerCall(**{**row, "effect": Effect(row["effect"])}) for row in rows]


async def update_call_started(connection: Connection, call_id: str, attempt: int) -> bool:
    """The call's effect may happen from here on. False when this attempt had said so before."""
    return bool(
        await connection.fetchval(
            """
            update tool_calls
            set state = 'started', attempt = $2, started_at = coalesce(started_at, clock_timestamp())
            where id = $1 and state <> 'finished' and attempt is distinct from $2
            returning true
            """,
            call_id,
            attempt,
        )
    )


async def select_call_is_finished(connection: Connection, call_id: str) -> bool:
    """Whether the call has its result."""
    return bool(await connection.fetchval("select true from tool_calls where id = $1 and state = 'finished'", call_id))


async def count_calls(connection: Connection, run_id: UUID) -> int:
    """How many calls the run has made so far."""
    count: int = await connection.fetchval("select count(*) from tool_calls where run_id = $1", run_id)
    return count


async def update_call_finished(connection: Connection, call_id: str, outcome: Outcome) -> bool:
    """The call has its result. False when it had one before."""
    return bool(
        await connection.fetchval(
            """
            update tool_calls set state = 'finished', outcome = $2, finished_at = clock_timestamp()
            where id = $1 and state <> 'finished' returning true
            """,
            call_id,
            outcome,
        )
    )
