"""The series that processes tell Prometheus, by their names, each with its labels."""

import re

from prometheus_client import CollectorRegistry

from api import metrics as api_metrics
from api.scrape import ApiScrape
from common.observability.metrics import PROCESS
from worker import metrics as worker_metrics
from worker.scrape import WorkerScrape

DEFINED_BY = (api_metrics, worker_metrics)
"""Modules that must have been imported before the process's registry is whole."""


def own_series() -> dict[str, frozenset[str]]:
    """All that are ours, as a query names them."""
    found: dict[str, frozenset[str]] = {}
    for registry in (PROCESS, ApiScrape().registry, WorkerScrape().registry):
        found |= _series(registry)
    # A counter and a histogram have names of their own, under which there is no series.
    families = {re.sub("_(total|bucket)$", "", name) for name in found if name.endswith(("_total", "_bucket"))}
    return {name: found[name] for name in found.keys() - families if name.startswith("throughline_")}


def _series(registry: CollectorRegistry) -> dict[str, frozenset[str]]:
    # The library tells the labels of samples alone, and a figure that nobody has counted yet has none.
    return {
        name: frozenset(getattr(collector, "_labelnames", ())) | ({"le"} if name.endswith("_bucket") else frozenset())
        for collector, names in registry._collector_to_names.items()
        for name in names
    }
