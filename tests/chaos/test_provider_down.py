"""A provider that fails every request of many runs: its trouble is not made worse by theirs."""

import asyncio
import time
from collections.abc import Sequence

from tests.support.audit import audit, audit_watchers
from tests.support.chaos import Chaos
from tests.support.model_script import Reply
from tests.support.system import Client, System, running_system
from tests.support.watcher import Watcher

FAILURES = [
    Reply(status=503),
    Reply(status=429),
    Reply(text="half an answer", error="overloaded"),
    Reply(text="half an answer", cut_at=300),
]


async def test_outage_is_not_asked_three_times_by_every_run(chaos: Chaos) -> None:
    """All runs fail as retryable, the requests stay within the budget of retries, and what comes after it goes well."""
    runs, budget, refill_s = chaos.pick((60, 12, 3600.0), (2000, 400, 1.0))
    settings = {"PROVIDER_RETRY_BUDGET": str(budget), "PROVIDER_RETRY_REFILL_S": str(refill_s)}
    async with running_system() as system:
        client = await system.client(await system.api())
        worker = await system.worker(**settings)
        system.models.script(*chaos.random.choices(FAILURES, k=3 * runs), model="down")
        began = time.monotonic()
        starting = asyncio.Semaphore(16)
        watchers = await asyncio.gather(*(_play(client, "down", starting) for _ in range(runs)))
        allowed = runs + budget + (time.monotonic() - began) / refill_s
        requests = len(system.models.requests)
        chaos.figure("runs", runs)
        chaos.figure("requests", requests, allowed)
        chaos.figure("requests per run", requests / runs, allowed / runs)
        assert requests >= runs + budget, "what the budget allows is tried"
        refused = [error for watcher in watchers if "not asked again" in str((error := _error(watcher))["message"])]
        chaos.figure("runs that were refused a retry", len(refused))
        assert {(error["code"], error["retryable"]) for error in map(_error, watchers)} == {("provider_error", True)}
        assert worker.output().count("provider_retries_spent") == 1
        assert not (problems := await _problems(system, watchers, requests)), problems[:10]
        after = await _play(client, "up again", starting)
        assert after.completed


async def _play(client: Client, model: str, starting: asyncio.Semaphore) -> Watcher:
    async with starting:
        run = await client.start("hello", provider="anthropic", model=model)
    return await Watcher([client], run).watch(120)


def _error(watcher: Watcher) -> dict[str, object]:
    return dict((watcher.end or {}).get("error", {}))


async def _problems(system: System, watchers: Sequence[Watcher], requests: int) -> list[str]:
    problems = [*await audit(system), *await audit_watchers(system, watchers)]
    [metered] = await system.rows("select count(*) from model_calls where state = 'failed'")
    if metered[0] != requests:
        problems.append(f"{requests} requests, {metered[0]} of them metered as failed")
    [messages] = await system.rows("select count(*) from messages where role = 'assistant'")
    if messages[0]:
        problems.append(f"{messages[0]} steps are committed")
    return problems
