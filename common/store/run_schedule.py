"""Runs across all workspaces: the scheduler's SQL functions. Ids, attempts and flags in, ids and flags out."""

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Literal, NamedTuple
from uuid import UUID

from common.ids import EventId
from common.model.run_state import Priority, RunState
from common.store.database import Pool
from common.store.run_transitions import DueRun


class Claim(NamedTuple):
    """A run that this worker owns for one attempt."""

    workspace_id: UUID
    run_id: UUID
    attempt: int
    priority: Priority


class ToCancel(NamedTuple):
    """A run that nobody runs, with a cancel request that nobody carried out."""

    workspace_id: UUID
    run_id: UUID
    attempt: int


class Expired(NamedTuple):
    """A run whose lease ran out; all but `requeued` are to be settled."""

    workspace_id: UUID
    run_id: UUID
    attempt: int
    verdict: Literal["requeued", "crash_loop", "cancelled"]


class Promotable(NamedTuple):
    """A conversation whose next waiting run nobody promoted."""

    workspace_id: UUID
    conversation_id: UUID


class RunPosition(NamedTuple):
    """Where a run stands; `terminal` is the id of its last event once it has ended."""

    workspace_id: UUID
    run_id: UUID
    state: RunState
    attempt: int
    terminal: EventId | None


class QueueDepth(NamedTuple):
    """The runs of one priority: `queued`, `due` among these, `running`, and `waiting` for their conversation.

    `held` are queued as well, and would be due if their workspace had not as many running as it may.
    `oldest_due_s` is for how long the oldest due one might have been claimed, in seconds; None when none is due.
    """

    priority: Priority
    queued: int
    due: int
    held: int
    oldest_due_s: float | None
    running: int
    waiting: int


async def claim_runs(
    pool: Pool, owner: str, lease_s: float, limit: int, priorities: Iterable[Priority] = tuple(Priority)
) -> list[Claim]:
    """Up to `limit` due runs, each in a new attempt owned by `owner`.

    Interactive ones first, except that background ones that have been due for a minute get a tenth of the places in
    use. Among equals, those of the workspace with the fewest runs running come first. None of a workspace that has
    as many running as it may.
    """
    rows = await pool.fetch(
        "select * from claim_runs($1, $2, $3, $4)",
        owner,
        timedelta(seconds=lease_s),
        limit,
        [priority.number for priority in priorities],
    )
    return [Claim(row["workspace_id"], row["run_id"], row["attempt"], Priority.of(row["priority"])) for row in rows]


async def renew_leases(
    pool: Pool, owner: str, claims: Sequence[tuple[UUID, int]], lease_s: float, *, wait: bool
) -> dict[UUID, bool]:
    """The runs whose lease is renewed, each with whether its cancel was requested; `claims` are (run, claimed attempt).

    Without `wait`, rows that somebody has locked are skipped: one that is absent may still be ours.
    """
    rows = await pool.fetch(
        "select * from renew_leases($1, $2, $3, $4, $5)",
        owner,
        [run_id for run_id, _ in claims],
        [claimed_attempt for _, claimed_attempt in claims],
        timedelta(seconds=lease_s),
        wait,
    )
    return {row["run_id"]: row["cancel_requested"] for row in rows}


async def sweep_expired(pool: Pool, answering_s: float, limit: int = 100) -> list[Expired]:
    """Requeues runs whose lease ran out and names those that must end.

    None before Postgres has answered the sweeps of all workers together for `answering_s` seconds without a pause.
    """
    rows = await pool.fetch("select * from sweep_expired($1, $2)", limit, timedelta(seconds=answering_s))
    return [Expired(row["workspace_id"], row["run_id"], row["attempt"], row["verdict"]) for row in rows]


async def find_cancelled(pool: Pool, limit: int = 100) -> list[ToCancel]:
    """Runs that nobody runs and whose cancel request nobody carried out."""
    rows = await pool.fetch("select * from find_cancelled($1)", limit)
    return [ToCancel(row["workspace_id"], row["run_id"], row["attempt"]) for row in rows]


async def find_promotable(pool: Pool, limit: int = 100) -> list[Promotable]:
    """Conversations with a waiting run and no active one."""
    rows = await pool.fetch("select * from find_promotable($1)", limit)
    return [Promotable(row["workspace_id"], row["conversation_id"]) for row in rows]


async def find_next_run(pool: Pool, workspace_id: UUID) -> DueRun | None:
    """The workspace's run that is to be claimed next, if one is due; it may be beyond the workspace's cap."""
    rows = await pool.fetch("select * from find_next_run($1)", workspace_id)
    return DueRun(rows[0]["run_id"], Priority.of(rows[0]["priority"])) if rows else None


async def poll_runs(pool: Pool, run_ids: Sequence[UUID]) -> list[RunPosition]:
    """Where these runs stand, in one query. The caller has shown before that it may see them."""
    rows = await pool.fetch("select * from poll_runs($1)", list(run_ids))
    return [
        RunPosition(
            row["workspace_id"],
            row["run_id"],
            RunState(row["state"]),
            row["attempt"],
            None if row["terminal_n"] is None else EventId(row["terminal_attempt"], row["terminal_n"]),
        )
        for row in rows
    ]


async def measure_queue(pool: Pool) -> list[QueueDepth]:
    """How much there is to do, by priority, the most urgent first; each is told even when there is nothing."""
    rows = await pool.fetch("select priority, queued, due, held, oldest_due_s, running, waiting from measure_queue()")
    depths = {priority: QueueDepth(priority, 0, 0, 0, None, 0, 0) for priority in Priority}
    for row in rows:
        priority = Priority.of(row["priority"])
        depths[priority] = QueueDepth(**{**row, "priority": priority})
    return list(depths.values())
