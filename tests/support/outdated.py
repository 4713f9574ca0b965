"""What housekeeping finds: rows as old as a test needs them, and what is left of them."""

from typing import Any
from uuid import UUID

import msgspec

from common.config import Settings
from common.housekeeping import keep_house
from common.ids import new_id
from common.model.run_state import RunState
from common.queue import Bell
from common.store.database import Pool, workspace_transaction
from tests.support.seed import Seeded, seed_run
from tests.support.worker_life import write


async def keep(pool: Pool, bell: Bell, settings: Settings, **retention: int) -> dict[str, int]:
    """A round of housekeeping with these settings; how much of what it removed."""
    return await keep_house(pool, bell, msgspec.structs.replace(settings, **retention), 60)


async def finished_run(pool: Pool, days_ago: float, **where: Any) -> Seeded:
    """A run that ended so long ago, with a step, a call, the call's result and everything that is written beside."""
    seeded = await seed_run(pool, state=RunState.WAITING, **where)
    ids = {"run": seeded.run.id, "conversation": seeded.conversation_id, "step": new_id(), "result": new_id()}
    async with workspace_transaction(pool, seeded.workspace_id) as connection:
        turn = await connection.fetchval("select turn from runs where id = $1", seeded.run.id)
        await connection.execute(
            f"""
            insert into messages (workspace_id, id, conversation_id, run_id, step, turn, position, role, content,
                                  tool_calls, tool_call_id, outcome, provider_data)
            values (current_workspace(), '{ids["step"]}', '{ids["conversation"]}', '{ids["run"]}', 1, {turn}, 1,
                    'assistant', 'I look', '[{{"toolCallId": "c", "name": "look", "arguments": {{}}}}]', null, null,
                    '{{"signature": "long"}}'),
                   (current_workspace(), '{ids["result"]}', '{ids["conversation"]}', '{ids["run"]}', null, {turn}, 2,
                    'tool', 'nothing', null, 'c', 'ok', null);
            insert into tool_calls (workspace_id, id, run_id, message_id, step, index, name, arguments, effect, state,
                                    outcome)
            values (current_workspace(), 'c{ids["run"]}', '{ids["run"]}', '{ids["step"]}', 1, 0, 'look', '{{}}', 'read',
                    'finished', 'ok');
            insert into model_calls (workspace_id, id, run_id, attempt, step, provider, model, state, finished_at)
            values (current_workspace(), '{new_id()}', '{ids["run"]}', 1, 1, 'echo', 'echo', 'completed', now());
            update runs set instructions = 'be kind', tools = '{{look}}', settings = '{{"temperature": 1}}',
                state = 'failed', error = '{{"code": "internal", "message": "no", "retryable": true}}',
                partial_text = 'so far', terminal_attempt = 1, terminal_n = 9, terminal_event = '{{}}',
                finished_at = clock_timestamp() - interval '1 day' * {days_ago}
            where id = '{ids["run"]}'
            """
        )
    return seeded


async def delete_conversation(pool: Pool, seeded: Seeded, days_ago: float) -> None:
    """The run's conversation was deleted so long ago."""
    statement = f"update conversations set deleted_at = clock_timestamp() - interval '1 day' * {days_ago} where id = $1"
    await write(pool, seeded, statement, seeded.conversation_id)


async def seed_document(pool: Pool, workspace_id: UUID, days_ago: float | None) -> UUID:
    """A document with a row in each table that belongs to it, deleted so long ago."""
    document_id = new_id()
    deleted = "null" if days_ago is None else f"clock_timestamp() - interval '1 day' * {days_ago}"
    rows = {
        "document_updates": "(workspace_id, document_id, seq, data) values (W, D, 1, '')",
        "document_snapshots": "(workspace_id, document_id, seq, data) values (W, D, 1, '')",
        "document_texts": "(workspace_id, document_id, seq, content) values (W, D, 1, 'words')",
        "document_changes": "(workspace_id, document_id, first_seq, last_seq, actor_kind, actor_id, inserted, removed,"
        " began_at, ended_at) values (W, D, 1, 1, 'user', 'ada', 5, 0, now(), now())",
        "document_clients": "(workspace_id, document_id, client, actor_kind, actor_id, taken_by_server)"
        " values (W, D, 1, 'user', 'ada', false)",
    }
    async with workspace_transaction(pool, workspace_id) as connection:
        await connection.execute(
            f"insert into documents (workspace_id, id, name, kind, created_by, updated_by, deleted_at) values"
            f" (current_workspace(), $1, 'notes', 'markdown', 'ada', 'ada', {deleted})",
            document_id,
        )
        for table, values in rows.items():
            values = values.replace("W", "current_workspace()").replace("D", f"'{document_id}'")
            await connection.execute(f"insert into {table} {values}")
    return document_id


async def tables_with(owner: Any, column: str, value: UUID) -> set[str]:
    """The tables in which a row names `value` in `column`."""
    tables = await owner.fetch(
        "select table_name from information_schema.columns where table_schema = 'public' and column_name = $1", column
    )
    names = [row["table_name"] for row in tables]
    return {
        name for name in names if await owner.fetchval(f"select exists (select from {name} where {column} = $1)", value)
    }
