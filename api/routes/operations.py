"""What goes on in the whole system, for operators: numbers, ids and codes of all workspaces, never content."""

from datetime import datetime
from functools import partial
from typing import Annotated, NamedTuple
from uuid import UUID

from litestar import Router, get, post
from litestar.datastructures import State
from litestar.params import FromPath, QueryParameter
from msgspec import Meta

from api.auth import authenticate_operator
from api.commands.requeue import requeue
from api.pagination import DEFAULT_LIMIT, CursorText, Limit, ListCursor
from api.routes.injection import Process, Superuser
from api.routes.refusals import refusals
from common.model.answers import Page
from common.model.operations import FailedRun, OperationsSummary, PastMinute, Requeue, WorkspaceUse
from common.model.run_state import RunErrorCode
from common.recent import Recent
from common.store.database import Pool
from common.store.operations import select_failed_runs, select_minutes, select_summary, select_use

WithCode = Annotated[RunErrorCode | None, QueryParameter(name="code", description="Those that failed with one code.")]

_HISTORY_MINUTES = 60
_SUMMARY_S = 1.0
_HISTORY_S = 15.0
_USE_S = 10.0
_MOST_USED = 100


class Figures:
    """What is the same for all operators, read by this process at most once in a while for all of them."""

    def __init__(self, pool: Pool) -> None:
        self.summary = Recent(partial(select_summary, pool), _SUMMARY_S)
        self.history = Recent(partial(select_minutes, pool, _HISTORY_MINUTES), _HISTORY_S)
        self.use = Recent(partial(select_use, pool, _MOST_USED), _USE_S)


class _LastFailed(NamedTuple):
    """The position in the list of failed runs."""

    finished_at: Annotated[datetime, Meta(tz=True)]
    id: UUID


@get("/summary", responses=refusals())
async def get_operations_summary(state: State) -> OperationsSummary:
    """Tells how the system is now: queues, workers, latencies, ends."""
    figures: Figures = state.figures
    return await figures.summary.get()


@get("/history", responses=refusals())
async def get_operations_history(state: State) -> Page[PastMinute]:
    """Lists the last hour by minutes up to now, oldest first. Renewed every 15 s."""
    figures: Figures = state.figures
    return Page(data=await figures.history.get())


@get("/failed-runs", responses=refusals())
async def list_failed_runs(
    resources: Process, code: WithCode = None, limit: Limit = DEFAULT_LIMIT, cursor: CursorText = None
) -> Page[FailedRun]:
    """Lists the failed runs of all workspaces, the last one first."""
    cursors = ListCursor("failed runs", None, code)
    before = cursors.read(cursor, _LastFailed)
    found = await select_failed_runs(resources.pool, [code] if code else list(RunErrorCode), before, limit + 1)
    return cursors.page(found, limit, lambda run: (run.finished_at, run.run_id))


@get("/workspaces", responses=refusals())
async def list_workspace_use(state: State) -> Page[WorkspaceUse]:
    """Lists the hundred workspaces that used most tokens this month, most first. Renewed every 10 s."""
    figures: Figures = state.figures
    return Page(data=await figures.use.get())


@post("/runs/{run_id:uuid}/requeue", status_code=202, responses=refusals(404, 409))
async def post_requeue(resources: Process, operator: Superuser, run_id: FromPath[UUID]) -> Requeue:
    """Starts a failed run again, as a new run of its turn; what it had said is superseded, its tools may run again.

    Twice is fine: a run is started again once, and a repetition is answered as the first request was. Refused once the
    conversation has gone on, is busy, or was deleted.
    """
    return await requeue(resources, operator, run_id)


operations = Router(
    "/v1/ops",
    guards=[authenticate_operator],
    tags=["Operations"],
    route_handlers=[
        get_operations_summary,
        get_operations_history,
        list_failed_runs,
        list_workspace_use,
        post_requeue,
    ],
)
