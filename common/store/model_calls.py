"""Model calls: one row per request to a provider, also of cancelled, failed and crashed ones. They are the meter.

A row outlives its run and conversation. A trigger writes in for which conversation, agent and user the run was.
"""

from datetime import datetime
from uuid import UUID

from common.model.messages import Usage
from common.store.database import Connection


async def insert_model_call(
    connection: Connection,
    *,
    call_id: UUID,
    run_id: UUID,
    attempt: int,
    step: int,
    provider: str,
    model: str,
    input_tokens: int,
) -> None:
    """A call about to be made; said twice, it is one. `input_tokens` is an estimate, which a crash leaves standing."""
    await connection.execute(
        """
        insert into model_calls (workspace_id, id, run_id, attempt, step, provider, model, state, input_tokens,
                                 estimated)
        values (current_workspace(), $1, $2, $3, $4, $5, $6, 'started', $7, true)
        on conflict do nothing
        """,
        call_id,
        run_id,
        attempt,
        step,
        provider,
        model,
        input_tokens,
    )


async def finish_model_call(
    connection: Connection, call_id: UUID, state: str, usage: Usage, error_code: str | None = None
) -> None:
    """Closes a call as `completed`, `failed` or `cancelled`; a call that a crash closed before stays as it is."""
    await connection.execute(
        """
        update model_calls
        set state = $2, input_tokens = $3, output_tokens = $4, cached_input_tokens = $5, cache_write_tokens = $6,
            reasoning_tokens = $7, estimated = $8, error_code = $9, finished_at = clock_timestamp()
        where id = $1 and state = 'started'
        """,
        call_id,
        state,
        usage.input_tokens,
        usage.output_tokens,
        usage.cached_input_tokens,
        usage.cache_write_tokens,
        usage.reasoning_tokens,
        usage.estimated,
        error_code,
    )


async def close_crashed_calls(connection: Connection, run_id: UUID) -> None:
    """Closes what was left `started` by an attempt that is over, with the estimate it began with."""
    await connection.execute(
        """
        update model_calls set state = 'crashed', finished_at = clock_timestamp()
        where run_id = $1 and state = 'started'
        """,
        run_id,
    )


async def sum_usage(connection: Connection, run_id: UUID) -> Usage:
    """All calls of the run together."""
    row = await connection.fetchrow(
        """
        select coalesce(sum(input_tokens), 0)::bigint as input_tokens,
               coalesce(sum(output_tokens), 0)::bigint as output_tokens,
               coalesce(sum(cached_input_tokens), 0)::bigint as cached_input_tokens,
               coalesce(sum(cache_write_tokens), 0)::bigint as cache_write_tokens,
               coalesce(sum(reasoning_tokens), 0)::bigint as reasoning_tokens,
               coalesce(bool_or(estimated), false) as estimated
        from model_calls where run_id = $1
        """,
        run_id,
    )
    return Usage(**row)


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
