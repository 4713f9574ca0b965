"""Row level security: the database itself keeps workspaces apart."""

from uuid import UUID

import asyncpg
import httpx
import msgspec
import pytest

from common.config import ConfigError, Settings
from common.ids import new_id
from common.store.database import Pool, open_pool, workspace_transaction
from tests.support.api_client import make_conversation, post_message
from tests.support.hand_worker import answer

TENANT_TABLES = """
    select c.relname as name, c.relrowsecurity as enabled, c.relforcerowsecurity as forced,
           array(select p.polname::text from pg_policy p where p.polrelid = c.oid) as policies
    from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attname = 'workspace_id'
    where c.relkind in ('r', 'p') and c.relnamespace = 'public'::regnamespace
"""


KEYS = """
    select con.conname::text as name, con.contype::text as kind,
           (select attname::text from pg_attribute where attrelid = con.conrelid and attnum = con.conkey[1]) as own,
           (select attname::text from pg_attribute where attrelid = con.confrelid and attnum = con.confkey[1]) as other
    from pg_constraint con
    join pg_attribute a on a.attrelid = con.conrelid and a.attname = 'workspace_id'
    where con.contype in ('p', 'u', 'f') and con.connamespace = 'public'::regnamespace
"""
SCHEDULER = "throughline_scheduler"
DEFINERS = """
    select p.proname::text as name, r.rolname::text as owner, p.proconfig[1] as path,
           has_function_privilege('public', p.oid, 'execute') as for_everybody
    from pg_proc p join pg_roles r on r.oid = p.proowner
    where p.prosecdef and p.pronamespace = 'public'::regnamespace
"""
SCHEDULER_COLUMNS = """
    select table_name::text as table, column_name::text as column from information_schema.column_privileges
    where grantee = $1 and privilege_type = 'SELECT'
"""


async def test_every_table_with_a_workspace_is_protected(database_url: str) -> None:
    """Enabled, forced, with a policy that checks reads and writes; fails for a table that somebody forgets."""
    owner = await asyncpg.connect(database_url)
    tables = await owner.fetch(TENANT_TABLES)
    unchecked = await owner.fetch(
        "select tablename from pg_policies where policyname = 'workspace'"
        " and (qual not like '%current_workspace()%' or with_check not like '%current_workspace()%')"
    )
    await owner.close()

    assert {"agents", "conversations", "messages", "runs", "tickets"} <= {table["name"] for table in tables}
    for table in tables:
        assert table["enabled"], table["name"]
        assert table["forced"], table["name"]
        assert "workspace" in table["policies"], table["name"]
    assert unchecked == []


async def test_keys_lead_to_ones_own_workspace_alone(database_url: str) -> None:
    """Primary, unique and foreign keys of protected tables begin with the workspace, on both sides of a reference.

    But for the ids of runs, by which workers know them: the server alone makes these, so nobody names a taken one.
    """
    owner = await asyncpg.connect(database_url)
    keys = await owner.fetch(KEYS)
    await owner.close()

    assert {key["kind"] for key in keys} == {"p", "u", "f"}
    assert len(keys) > 20
    for key in keys:
        assert key["own"] == "workspace_id" or key["name"] == "runs_id_key", key
        assert key["other"] in (None, "workspace_id"), key


async def test_what_sees_across_workspaces_tells_no_content(database_url: str) -> None:
    """Functions that run as another role run as the scheduler, with a pinned search path, and not for everybody; the
    scheduler itself is nobody special, and may read no column that holds what people or models say."""
    owner = await asyncpg.connect(database_url)
    functions = await owner.fetch(DEFINERS)
    scheduler = await owner.fetchrow(
        "select rolsuper, rolbypassrls, rolcanlogin from pg_roles where rolname = $1", SCHEDULER
    )
    columns = await owner.fetch(SCHEDULER_COLUMNS, SCHEDULER)
    await owner.close()

    assert len(functions) >= 7
    for function in functions:
        assert function["owner"] == SCHEDULER, function["name"]
        assert function["path"] == "search_path=pg_catalog, public, pg_temp", function["name"]
        assert not function["for_everybody"], function["name"]
    assert tuple(scheduler) == (False, False, False)
    content = {"content", "edited_content", "reasoning", "title", "instructions", "system_prompt", "partial_text"}
    content |= {"arguments", "result", "tool_calls", "error", "answer", "update", "snapshot", "hash", "settings"}
    assert not {(row["table"], row["column"]) for row in columns if row["column"] in content}
    assert columns


@pytest.fixture
async def tables(client: httpx.AsyncClient, pool: Pool, database_url: str) -> list[str]:
    """The names of the protected tables, with rows of the client in the main ones."""
    await post_message(client, await make_conversation(client))
    await answer(pool)
    await client.post("/v1/agents", json={"name": "Ada"})
    owner = await asyncpg.connect(database_url)
    names = [row["name"] for row in await owner.fetch(TENANT_TABLES)]
    await owner.close()
    return names


async def test_nothing_is_seen_without_a_workspace(pool: Pool, tables: list[str], workspace_id: UUID) -> None:
    """No workspace, or none any more after a transaction, means zero rows."""
    async with workspace_transaction(pool, workspace_id) as connection:
        assert await connection.fetchval("select count(*) from messages") == 2
    for table in tables:
        assert await pool.fetchval(f"select count(*) from {table}") == 0, table


async def test_rows_of_another_workspace_cannot_be_touched(pool: Pool, tables: list[str], workspace_id: UUID) -> None:
    """Reading, changing and deleting find nothing; inserting into another workspace is refused."""
    async with workspace_transaction(pool, new_id()) as connection:
        for table in tables:
            assert await connection.fetchval(f"select count(*) from {table}") == 0, table
            assert await connection.execute(f"delete from {table}") == "DELETE 0", table
        assert await connection.execute("update agents set name = 'x'") == "UPDATE 0"
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(
                "insert into agents (workspace_id, id, name, max_steps, created_by) values ($1, $2, 'x', 1, 'x')",
                workspace_id,
                new_id(),
            )


async def test_service_cannot_lift_its_own_restrictions(pool: Pool) -> None:
    """The role that serves can neither switch row security off nor become another role by right of its own."""
    async with pool.acquire() as connection:
        role = await connection.fetchrow(
            "select current_user::text as name, rolsuper, rolbypassrls from pg_roles where rolname = current_user"
        )
        assert tuple(role) == ("throughline_app", False, False)
        for statement in (
            "alter table messages no force row level security",
            "alter table messages disable row level security",
            "drop policy workspace on messages",
            "create policy everything on messages using (true)",
            "alter role throughline_app bypassrls",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
        await connection.execute("set row_security = off")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.fetch("select * from messages")
        await connection.execute("reset row_security")


async def test_service_refuses_to_run_as_owner(settings: Settings) -> None:
    """A connection for which row security would not hold is refused at once."""
    with pytest.raises(ConfigError, match="row level security"):
        await open_pool(msgspec.structs.replace(settings, database_role=""))
