"""Numbers, ids and codes across all workspaces, for operators: the scheduler's SQL functions. No content."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from common.model.operations import (
    EndedRuns,
    FailedRun,
    Latency,
    Minute,
    OperationsSummary,
    PastMinute,
    Queue,
    Requeue,
    WorkspaceUse,
)
from common.model.run_state import RunErrorCode, RunState
from common.store.database import Pool, Row
from common.store.run_schedule import measure_queue
from common.store.workers import select_workers

_LATENCIES_OF = timedelta(minutes=5)
_ENDS_OF = timedelta(hours=1)


async def select_summary(pool: Pool) -> OperationsSummary:
    """How the system is now."""
    queues = [Queue(**depth._asdict()) for depth in await measure_queue(pool)]
    latencies = await _select_latencies(pool)
    now = datetime.now(UTC)
    last_minute = await pool.fetchrow("select * from measure_minutes(1, false)")
    return OperationsSummary(
        at=now,
        queues=queues,
        pickup=latencies.get("pickup", Latency()),
        first_token=latencies.get("first_token", Latency()),
        last_minute=Minute(at=now, **_figures(last_minute)),
        ended=await _select_ended(pool),
        workers=await select_workers(pool),
    )


async def select_minutes(pool: Pool, minutes: int) -> list[PastMinute]:
    """Each of the last `minutes`, up to now, oldest first."""
    now = datetime.now(UTC)
    rows = await pool.fetch("select * from measure_minutes($1, true)", minutes)
    return [
        PastMinute(at=now - timedelta(minutes=row["ago"]), output_tokens=row["output_tokens"], **_figures(row))
        for row in rows
    ]


async def select_failed_runs(
    pool: Pool, codes: Sequence[RunErrorCode], before: tuple[datetime, UUID] | None, limit: int
) -> list[FailedRun]:
    """Those that failed with one of `codes`, the last one first; `before` is the (finishedAt, id) of the last seen."""
    rows = await pool.fetch(
        "select * from find_failed_runs($1, $2, $3, $4)", list(codes), *(before or (None, None)), limit
    )
    return [_read_failed(row) for row in rows]


async def select_use(pool: Pool, limit: int) -> list[WorkspaceUse]:
    """The `limit` workspaces that used most tokens this month, most first."""
    while await pool.fetchval("select close_day_of_use()"):
        pass
    return [WorkspaceUse(**row) for row in await pool.fetch("select * from measure_use($1)", limit)]


async def _select_latencies(pool: Pool) -> dict[str, Latency]:
    rows = await pool.fetch("select * from measure_latencies($1)", _LATENCIES_OF)
    return {
        row["what"]: Latency(samples=row["samples"], p50_ms=row["p50"], p95_ms=row["p95"], p99_ms=row["p99"])
        for row in rows
    }


async def _select_ended(pool: Pool) -> list[EndedRuns]:
    rows = await pool.fetch("select * from count_ended_runs($1)", _ENDS_OF)
    return [EndedRuns(state=RunState(row["state"]), code=_code(row["error_code"]), runs=row["runs"]) for row in rows]


def _figures(row: Row) -> dict[str, Any]:
    return {
        "completed": row["completed"],
        "failed": row["failed"],
        "cancelled": row["cancelled"],
        "pickup_p50_ms": row["pickup_p50"],
        "pickup_p95_ms": row["pickup_p95"],
        "first_token_p50_ms": row["first_token_p50"],
        "first_token_p95_ms": row["first_token_p95"],
    }


def _read_failed(row: Row) -> FailedRun:
    requeue = None
    if row["new_run_id"] is not None:
        requeue = Requeue(
            run_id=row["run_id"],
            new_run_id=row["new_run_id"],
            requeued_by=row["requeued_by"],
            requeued_at=row["requeued_at"],
        )
    return FailedRun(
        workspace_id=row["workspace_id"],
        run_id=row["run_id"],
        conversation_id=row["conversation_id"],
        agent_id=row["agent_id"],
        code=RunErrorCode(row["error_code"]),
        attempts=row["attempts"],
        crashes=row["crashes"],
        created_at=row["created_at"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        requeueable=requeue is None and not (row["outdated"] or row["details_removed"] or row["conversation_deleted"]),
        outdated=row["outdated"],
        details_removed=row["details_removed"],
        conversation_deleted=row["conversation_deleted"],
        requeue=requeue,
    )


def _code(text: str | None) -> RunErrorCode | None:
    # A later version may know codes that this one does not.
    return RunErrorCode(text) if text in tuple(RunErrorCode) else None
