"""Runs."""

from typing import Annotated
from uuid import UUID

from litestar import Router, get, post
from litestar.params import FromPath, QueryParameter

from api.auth import authenticate
from api.commands.cancel_run import cancel_run
from api.errors import not_found
from api.pagination import DEFAULT_LIMIT, CursorText, Limit, ListCursor, NewestFirst
from api.routes.injection import Asker, Process
from api.routes.refusals import refusals
from common.model.answers import Page
from common.model.messages import Run
from common.model.run_state import RunState
from common.store.database import workspace_transaction
from common.store.runs import select_run, select_runs

OfConversation = Annotated[UUID | None, QueryParameter(name="conversationId", description="Those of one conversation.")]

InState = Annotated[RunState | None, QueryParameter(name="state", description="Those in one state.")]


@get("/", responses=refusals())
async def list_runs(
    resources: Process,
    principal: Asker,
    conversation_id: OfConversation = None,
    run_state: InState = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: CursorText = None,
) -> Page[Run]:
    """Lists runs, newest first."""
    cursors = ListCursor("runs", principal.workspace_id, conversation_id, run_state)
    before = cursors.read(cursor, NewestFirst)
    async with workspace_transaction(resources.pool, principal.workspace_id) as connection:
        runs = await select_runs(
            connection, conversation_id=conversation_id, state=run_state, before=before, limit=limit + 1
        )
    return cursors.page(runs, limit, lambda run: (run.created_at, run.id))


@get("/{run_id:uuid}", responses=refusals(404))
async def get_run(resources: Process, principal: Asker, run_id: FromPath[UUID]) -> Run:
    """Reads a run."""
    async with workspace_transaction(resources.pool, principal.workspace_id) as connection:
        run = await select_run(connection, run_id)
    if run is None:
        raise not_found()
    return run


@post("/{run_id:uuid}/cancel", status_code=200, responses=refusals(404))
async def post_cancel(resources: Process, principal: Asker, run_id: FromPath[UUID]) -> Run:
    """Cancels a run; answers when it has ended, or after 2 s with the state as it is. Twice is fine."""
    return await cancel_run(resources, principal, run_id)


runs = Router("/v1/runs", guards=[authenticate], tags=["Runs"], route_handlers=[list_runs, get_run, post_cancel])
