"""Model calls of the past, as their worker has left them."""

from datetime import datetime
from uuid import UUID

from common.ids import new_id
from common.model.messages import Usage
from common.store.database import Pool, workspace_transaction
from tests.support.seed import seed_run


async def meter(
    pool: Pool,
    workspace_id: UUID,
    at: str,
    usage: Usage,
    *,
    provider: str = "echo",
    model: str = "echo",
    agent_id: UUID | None = None,
    user: str = "alice",
) -> UUID:
    """A completed call that began at this time (RFC 3339), in a conversation of its own; the conversation."""
    run = (await seed_run(pool, workspace_id=workspace_id)).run
    async with workspace_transaction(pool, workspace_id) as connection:
        await connection.execute("update runs set agent_id = $2, created_by = $3 where id = $1", run.id, agent_id, user)
        await connection.execute(
            """
            insert into model_calls (workspace_id, id, run_id, attempt, step, provider, model, state, input_tokens,
                                     output_tokens, cached_input_tokens, cache_write_tokens, reasoning_tokens,
                                     estimated, started_at, finished_at)
            values ($1, $2, $3, 1, 1, $4, $5, 'completed', $6, $7, $8, $9, $10, $11, $12, $12)
            """,
            workspace_id,
            new_id(),
            run.id,
            provider,
            model,
            usage.input_tokens,
            usage.output_tokens,
            usage.cached_input_tokens,
            usage.cache_write_tokens,
            usage.reasoning_tokens,
            usage.estimated,
            datetime.fromisoformat(at),
        )
    return run.conversation_id
