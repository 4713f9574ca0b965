"""What a worker's figures are read from when somebody asks."""

from common.scrape import Scrape
from common.store.database import Pool
from worker.job import RunningRuns


class WorkerScrape(Scrape):
    """The figures of one worker; `show` says from what they are read."""

    def __init__(self) -> None:
        super().__init__()
        self._running = self.gauge("throughline_worker_running_runs", "Runs that this worker has in hand")
        self._free = self.gauge("throughline_worker_free_places", "Runs that it may claim now; none while it drains")

    def show(self, runs: RunningRuns, pool: Pool, heartbeats: Pool) -> None:
        """From now on: these runs, and these pools."""
        self.watch(pool, runs=pool, heartbeats=heartbeats)
        self._running.set_function(lambda: runs.running)
        self._free.set_function(lambda: runs.free)
