"""Model calls: one row per request to a provider, also of cancelled, failed and crashed ones. They are the meter.

A row outlives its run and conversation. A trigger writes in for which conversation, agent and user the run was.
"""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from common.errors import LeaseLost
from common.model.messages import Usage
from common.store.database import Connection
from common.store.run_transitions import HOLD

_FIGURES = Usage.__struct_fields__
"""Columns of the same names."""

CLOSE_CRASHED = """
    update model_calls set state = 'crashed', finished_at = clock_timestamp()
    where run_id = $1 and state = 'started'
"""


async def begin_model_call(
    connection: Connection,
    *,
    call_id: UUID,
    run_id: UUID,
    attempt: int,
    lease_s: float,
    step: int,
    provider: str,
    model: str,
    input_tokens: int,
) -> None:
    """Holds the run as `hold_run` does, and notes a call about to be made; said twice, it is one.

    `input_tokens` is an estimate, which a crash leaves standing. Raises LeaseLost.
    """
    held = await connection.fetchrow(
        f"""
        with held as ({HOLD}),
        noted as (
            insert into model_calls (workspace_id, id, run_id, attempt, step, provider, model, state, input_tokens,
                                     estimated)
            select workspace_id, $4, id, attempt, $5, $6, $7, 'started', $8, true from held
            on conflict do nothing)
        select from held
        """,
        run_id,
        attempt,
        timedelta(seconds=lease_s),
        call_id,
        step,
        provider,
        model,
        input_tokens,
    )
    if held is None:
        raise LeaseLost


def finishing(first: int = 1, condition: str = "true") -> str:
    """The statement that closes a call; a call that a crash closed before stays as it is.

    Its parameters are `finish_parameters`, from `$first` on.
    """
    figures = ", ".join(f"{name} = ${place}" for place, name in enumerate(_FIGURES, first + 3))
    return f"""
        update model_calls set state = ${first + 1}, error_code = ${first + 2}, {figures},
                               finished_at = clock_timestamp()
        where id = ${first} and state = 'started' and {condition}
    """


def finish_parameters(call_id: UUID, state: str, usage: Usage, error_code: str | None = None) -> tuple[Any, ...]:
    """What `finishing` writes: `state` is `completed`, `failed` or `cancelled`."""
    return (call_id, state, error_code, *(getattr(usage, name) for name in _FIGURES))


async def finish_model_call(
    connection: Connection, call_id: UUID, state: str, usage: Usage, error_code: str | None = None
) -> None:
    """Closes a call that made no step."""
    await connection.execute(finishing(), *finish_parameters(call_id, state, usage, error_code))


async def close_crashed_calls(connection: Connection, run_id: UUID) -> None:
    """Closes what was left `started` by an attempt that is over, with the estimate it began with."""
    await connection.execute(CLOSE_CRASHED, run_id)


async def sum_tokens(connection: Connection, since: datetime, user: str | None) -> int:
    """What calls that began at `since` or later have read and written: a user's, or the whole workspace's."""
    tokens: int = await connection.fetchval(
        """
        select coalesce(sum(input_tokens + output_tokens), 0)::bigint from model_calls
        where started_at >= $1 and ($2::text is null or created_by = $2)
        """,
        since,
        user,
    )
    return tokens
