"""Agents: reusable choices of instructions, model, tools and settings. Deleting is soft: runs keep their snapshot."""

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from msgspec import UNSET

from common.model.messages import Agent, AgentSettings
from common.model.requests import DEFAULT_MAX_STEPS, AgentChange, NewAgent
from common.store.database import Connection, Row

_COLUMNS = "id, name, instructions, provider, model, tools, max_steps, settings, created_by, created_at, updated_at"
_CLEARED: dict[str, Any] = {"tools": [], "max_steps": DEFAULT_MAX_STEPS, "settings": AgentSettings()}


async def insert_agent(connection: Connection, agent_id: UUID, new: NewAgent, created_by: str) -> Agent:
    """The agent as inserted."""
    row = await connection.fetchrow(
        f"""
        insert into agents (workspace_id, id, name, instructions, provider, model, tools, max_steps, settings,
                            created_by)
        values (current_workspace(), $1, $2, $3, $4, $5, $6, $7, $8, $9)
        returning {_COLUMNS}
        """,
        agent_id,
        new.name,
        new.instructions,
        new.provider,
        new.model,
        new.tools,
        new.max_steps,
        new.settings,
        created_by,
    )
    return _read_agent(row)


async def select_agent(connection: Connection, agent_id: UUID) -> Agent | None:
    """The agent, unless it is deleted."""
    row = await connection.fetchrow(f"select {_COLUMNS} from agents where id = $1 and deleted_at is null", agent_id)
    return None if row is None else _read_agent(row)


async def select_agents_named(connection: Connection, name: str) -> list[Agent]:
    """The agents of that name that are not deleted, two at most: more are as ambiguous."""
    rows = await connection.fetch(f"select {_COLUMNS} from agents where name = $1 and deleted_at is null limit 2", name)
    return [_read_agent(row) for row in rows]


async def select_agents(connection: Connection, *, before: tuple[datetime, UUID] | None, limit: int) -> list[Agent]:
    """Newest first; `before` is the (createdAt, id) of the last one seen."""
    rows = await connection.fetch(
        f"""
        select {_COLUMNS} from agents
        where deleted_at is null and ($1::timestamptz is null or (created_at, id) < ($1, $2))
        order by created_at desc, id desc limit $3
        """,
        before[0] if before else None,
        before[1] if before else None,
        limit,
    )
    return [_read_agent(row) for row in rows]


async def update_agent(connection: Connection, agent_id: UUID, change: AgentChange) -> Agent | None:
    """The agent with the fields that `change` names; None when there is none."""
    columns = {
        name: _CLEARED.get(name) if value is None else value
        for name, value in msgspec.structs.asdict(change).items()
        if value is not UNSET
    }
    # The names are those of the struct's fields, never the client's.
    assignments = "".join(f", {name} = ${index}" for index, name in enumerate(columns, start=2))
    row = await connection.fetchrow(
        f"""
        update agents set updated_at = clock_timestamp() {assignments}
        where id = $1 and deleted_at is null
        returning {_COLUMNS}
        """,
        agent_id,
        *columns.values(),
    )
    return None if row is None else _read_agent(row)


async def update_agent_deleted(connection: Connection, agent_id: UUID) -> bool:
    """Whether there was an agent to delete."""
    return bool(
        await connection.fetchval(
            "update agents set deleted_at = clock_timestamp() where id = $1 and deleted_at is null returning true",
            agent_id,
        )
    )


def _read_agent(row: Row) -> Agent:
    return Agent(**{**row, "settings": msgspec.convert(row["settings"], AgentSettings)})


async def select_agent_name(connection: Connection, run_id: UUID) -> str | None:
    """What the agent of a run is called; None for a run without one."""
    name: str | None = await connection.fetchval(
        "select a.name from runs r join agents a on a.id = r.agent_id where r.id = $1", run_id
    )
    return name
