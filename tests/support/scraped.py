"""What processes tell Prometheus, added up as Prometheus would."""

import re
from collections import Counter
from collections.abc import Iterable

import httpx
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from tests.support.eventually import eventually
from tests.support.processes import RunningProcess


class Scraped:
    """All samples of some processes' `/metrics`, taken at one time or another."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self.samples = list(samples)

    @classmethod
    async def of(cls, address: str, token: str) -> "Scraped":
        """What the process at this address tells whoever sends METRICS_TOKEN."""
        async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
            answer = await http.get(f"{address}/metrics", headers={"authorization": f"Bearer {token}"})
        assert answer.status_code == 200, answer.text
        return cls(sample for family in text_string_to_metric_families(answer.text) for sample in family.samples)

    def __add__(self, other: "Scraped") -> "Scraped":
        return Scraped([*self.samples, *other.samples])

    def sums(self, name: str, *labels: str) -> Counter[tuple[str, ...]]:
        """The figure by these labels; what was never counted is left out."""
        sums: Counter[tuple[str, ...]] = Counter()
        for sample in self.samples:
            if sample.name == name and sample.value:
                sums[tuple(sample.labels[label] for label in labels)] += round(sample.value)
        return sums

    def sum(self, name: str) -> int:
        """All that the figure has, whatever its labels."""
        return self.sums(name)[()]


async def address_of(worker: RunningProcess) -> str:
    """Where a worker with WORKER_METRICS_PORT tells its figures."""

    def served() -> re.Match[str] | None:
        return re.search(r"worker_metrics_served.* port=(\d+)", worker.output())

    found: re.Match[str] = await eventually(served, 30)
    return f"http://127.0.0.1:{found[1]}"
