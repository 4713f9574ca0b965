"""Workers, as each reports of itself every few seconds: for operators alone, nothing depends on it."""

from datetime import datetime
from typing import NamedTuple

from common.model.operations import WorkerReport
from common.model.run_state import Priority
from common.store.database import Connection, Pool

_GONE_AFTER_S = 600
_SILENT_AFTER_S = 10


class WorkerNow(NamedTuple):
    """What a worker says. Counters count from `started_at`."""

    owner: str
    version: str
    started_at: datetime
    running: int
    places: int
    draining: bool
    priorities: tuple[Priority, ...]
    runs_ended: int
    output_tokens: int


async def upsert_worker(connection: "Pool | Connection", worker: WorkerNow) -> None:
    """Replaces what `worker` said before, and forgets those that were silent for ten minutes."""
    await connection.execute(
        """
        with gone as (
            delete from workers where owner <> $1 and seen_at < clock_timestamp() - make_interval(secs => $10)
        )
        insert into workers (owner, version, started_at, running, places, draining, priorities, runs_ended,
                             output_tokens)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
        on conflict (owner) do update
        set running = excluded.running, places = excluded.places, draining = excluded.draining,
            runs_ended = excluded.runs_ended, output_tokens = excluded.output_tokens, seen_at = clock_timestamp()
        """,
        *worker._replace(priorities=[priority.number for priority in worker.priorities]),  # type: ignore[arg-type]
        _GONE_AFTER_S,
    )


async def delete_worker(connection: "Pool | Connection", owner: str) -> None:
    """The worker has left in good order."""
    await connection.execute("delete from workers where owner = $1", owner)


async def select_workers(connection: "Pool | Connection") -> list[WorkerReport]:
    """Those that were heard of within the last ten minutes, the longest at work first."""
    rows = await connection.fetch(
        """
        select owner, version, started_at, seen_at, running, places, priorities, runs_ended, output_tokens,
               case when seen_at < clock_timestamp() - make_interval(secs => $2) then 'silent'
                    when draining then 'draining' else 'working' end as state
        from workers where seen_at >= clock_timestamp() - make_interval(secs => $1)
        order by started_at, owner
        """,
        _GONE_AFTER_S,
        _SILENT_AFTER_S,
    )
    return [WorkerReport(**{**row, "priorities": [Priority.of(one) for one in row["priorities"]]}) for row in rows]
