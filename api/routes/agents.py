"""Agents."""

from uuid import UUID

from litestar import Router, delete, get, patch, post
from litestar.params import FromPath, JSONBody

from api.auth import authenticate
from api.commands.choice import check_provider, check_tools
from api.errors import not_found
from api.pagination import DEFAULT_LIMIT, CursorText, Limit, ListCursor, NewestFirst
from api.routes.injection import Asker, Process
from api.routes.refusals import refusals
from common.ids import new_id
from common.model.answers import Page
from common.model.messages import Agent
from common.model.requests import AgentChange, NewAgent
from common.store.agents import (
    insert_agent,
    select_agent,
    select_agents,
    update_agent,
    update_agent_deleted,
)
from common.store.catalogue import select_offers
from common.store.database import Connection, workspace_transaction


@post("/", responses=refusals(413, 415))
async def create_agent(resources: Process, principal: Asker, data: JSONBody[NewAgent]) -> Agent:
    """Makes an agent."""
    async with workspace_transaction(resources.pool, principal.workspace_id) as connection:
        await _check(connection, data)
        return await insert_agent(connection, new_id(), data, principal.user)


@get("/", responses=refusals())
async def list_agents(
    resources: Process, principal: Asker, limit: Limit = DEFAULT_LIMIT, cursor: CursorText = None
) -> Page[Agent]:
    """Lists agents, newest first."""
    cursors = ListCursor("agents", principal.workspace_id)
    before = cursors.read(cursor, NewestFirst)
    async with workspace_transaction(resources.pool, principal.workspace_id) as connection:
        agents = await select_agents(connection, before=before, limit=limit + 1)
    return cursors.page(agents, limit, lambda agent: (agent.created_at, agent.id))


@get("/{agent_id:uuid}", responses=refusals(404))
async def get_agent(resources: Process, principal: Asker, agent_id: FromPath[UUID]) -> Agent:
    """Reads an agent."""
    async with workspace_transaction(resources.pool, principal.workspace_id) as connection:
        agent = await select_agent(connection, agent_id)
    if agent is None:
        raise not_found()
    return agent


@patch("/{agent_id:uuid}", responses=refusals(404, 413, 415))
async def change_agent(
    resources: Process, principal: Asker, agent_id: FromPath[UUID], data: JSONBody[AgentChange]
) -> Agent:
    """Changes an agent: an absent field stays, null clears. Runs that exist keep what they were made with."""
    async with workspace_transaction(resources.pool, principal.workspace_id) as connection:
        agent = await update_agent(connection, agent_id, data)
        if agent is None:
            raise not_found()
        await _check(connection, data)
    return agent


@delete("/{agent_id:uuid}", responses=refusals(404))
async def delete_agent(resources: Process, principal: Asker, agent_id: FromPath[UUID]) -> None:
    """Deletes an agent. Its runs go on; a conversation that names it must choose another one."""
    async with workspace_transaction(resources.pool, principal.workspace_id) as connection:
        if not await update_agent_deleted(connection, agent_id):
            raise not_found()


async def _check(connection: Connection, named: NewAgent | AgentChange) -> None:
    if named.provider or named.tools:
        offers = await select_offers(connection)
        if named.provider:
            check_provider(offers, named.provider)
        if named.tools:
            check_tools(offers, named.tools)


agents = Router(
    "/v1/agents",
    guards=[authenticate],
    tags=["Agents"],
    route_handlers=[create_agent, list_agents, get_agent, change_agent, delete_agent],
)
