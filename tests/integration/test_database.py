"""Transactions of one workspace."""

import asyncpg
import pytest

from common.config import ConfigError, Settings
from common.ids import new_id
from common.store.database import DATABASE_DOWN, Pool, open_pool, workspace_transaction
from tests.support.seed import seed_run


async def test_value_that_does_not_fit_is_no_outage(pool: Pool) -> None:
    """What repeating cannot mend must not look like a database that is away, or it is repeated for ever."""
    with pytest.raises(ValueError, match="expected str") as raised:
        async with workspace_transaction(pool, new_id()) as connection:
            await connection.execute("select $1::text", 5)
    assert not isinstance(raised.value, DATABASE_DOWN)


async def test_failed_transaction_leaves_nothing_and_its_connection_usable(pool: Pool) -> None:
    """An exception rolls back, and the next transaction on that connection sees its own workspace alone."""
    seeded = await seed_run(pool)
    with pytest.raises(RuntimeError):
        async with workspace_transaction(pool, seeded.workspace_id) as connection:
            await connection.execute("delete from runs")
            raise RuntimeError
    async with workspace_transaction(pool, seeded.workspace_id) as connection:
        assert await connection.fetchval("select count(*) from runs") == 1
    async with workspace_transaction(pool, new_id()) as connection:
        assert await connection.fetchval("select count(*) from runs") == 0


async def test_without_a_workspace_nothing_is_seen(pool: Pool) -> None:
    """Also after a transaction that had one, on the same connection."""
    seeded = await seed_run(pool)
    async with pool.acquire() as connection:
        await connection.execute(f"begin; set local app.workspace_id = '{seeded.workspace_id}'; commit")
        for table in ("agents", "conversations", "messages", "runs", "model_calls", "tool_calls", "tickets"):
            assert await connection.fetchval(f"select count(*) from {table}") == 0


async def test_row_of_another_workspace_is_refused(pool: Pool) -> None:
    """Row level security checks what is written, too."""
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
        async with workspace_transaction(pool, new_id()) as connection:
            await connection.execute(
                "insert into conversations (workspace_id, id, created_by) values ($1, $1, 'x')", new_id()
            )


async def test_service_refuses_to_be_the_owner(settings: Settings) -> None:
    """Row level security would not hold for a superuser or for the tables' owner."""
    values = {name: getattr(settings, name) for name in settings.__struct_fields__}
    with pytest.raises(ConfigError, match="row level security"):
        await open_pool(Settings(**{**values, "database_role": ""}))
