"""What a worker tells operators of itself, every few seconds. Nothing depends on it, and no run waits for it."""

import asyncio
from datetime import UTC, datetime
from importlib.metadata import version

import structlog
from prometheus_client import Counter

from common.observability.metrics import RUNS_ENDED
from common.store.database import DATABASE_DOWN
from common.store.workers import WorkerNow, upsert_worker
from worker.job import RunningRuns
from worker.metrics import TOKENS
from worker.run.resources import Resources

_log = structlog.get_logger(__name__)
_EVERY_S = 2.0


async def report(resources: Resources, runs: RunningRuns) -> None:
    """Keeps this worker's row fresh until cancelled; one that cannot be written is left to the next time."""
    started_at = datetime.now(UTC)
    installed = version("throughline")
    while True:
        now = WorkerNow(
            owner=resources.owner,
            version=installed,
            started_at=started_at,
            running=runs.running,
            places=resources.settings.worker_max_runs,
            draining=runs.draining,
            priorities=resources.settings.worker_priorities,
            runs_ended=_total(RUNS_ENDED),
            output_tokens=_total(TOKENS, kind="output"),
        )
        try:
            await upsert_worker(resources.pool, now)
        except DATABASE_DOWN as error:
            _log.warning("report_not_written", error=type(error).__name__)
        except Exception:
            # Its runs must not end for the report's sake.
            _log.exception("report_broke")
        await asyncio.sleep(_EVERY_S)


def _total(counter: Counter, **labels: str) -> int:
    """All series with these labels together."""
    samples = (sample for metric in counter.collect() for sample in metric.samples)
    return round(
        sum(
            sample.value
            for sample in samples
            if sample.name.endswith("_total") and labels.items() <= sample.labels.items()
        )
    )
