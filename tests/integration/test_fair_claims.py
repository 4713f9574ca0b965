"""Whose run is claimed next: turns between workspaces, interactive before background, and nobody for ever last."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from statistics import quantiles
from uuid import UUID

import pytest

from common.ids import new_id
from common.model.run_state import Priority
from common.store.database import Pool
from common.store.run_schedule import Claim, claim_runs
from common.store.workspace_limits import upsert_default
from tests.support.lines import Lines, open_lines

INTERACTIVE, BACKGROUND = Priority.INTERACTIVE, Priority.BACKGROUND
A_MINUTE_S = 61.0
OTHERS = 9
_ROUNDS = 80
_ENTRIES_READ = """
    select sum(pg_stat_get_xact_tuples_returned(c.oid)) from pg_class c
    where c.relname = 'runs' or c.oid in (select indexrelid from pg_index where indrelid = 'runs'::regclass)
"""


@pytest.fixture
async def lines(database_url: str) -> AsyncIterator[Lines]:
    """What waits for workers."""
    async with open_lines(database_url) as lines:
        yield lines


class Places:
    """So many places of workers, which are filled again in rounds; a run keeps its place for some rounds."""

    def __init__(self, pool: Pool, lines: Lines, count: int) -> None:
        self._pool, self._lines, self._count = pool, lines, count
        self._random = random.Random(7)
        self._ends: dict[UUID, int] = {}
        self._round = 0
        self.taken: dict[UUID, Claim] = {}

    async def next_round(self) -> list[Claim]:
        """Ends what has run its time and claims as much as there is room for."""
        self._round += 1
        over = [run_id for run_id, end in self._ends.items() if end <= self._round]
        await self._lines.end(over)
        for run_id in over:
            del self._ends[run_id], self.taken[run_id]
        claims = await claim_runs(self._pool, "worker", 600, self._count - len(self.taken))
        for claim in claims:
            self.taken[claim.run_id] = claim
            self._ends[claim.run_id] = self._round + self._random.randint(1, 7)
        return claims


def _by_workspace(claims: Iterable[Claim]) -> Counter[UUID]:
    return Counter(claim.workspace_id for claim in claims)


async def _waits(pool: Pool, lines: Lines, others: list[UUID]) -> list[int]:
    """How many rounds the runs of the others wait: each posts three at once, now and then, and so wants three quarters
    of its share of the places."""
    places, since, waits = Places(pool, lines, 20), dict[UUID, int](), []
    for number in range(_ROUNDS):
        posting = [one for nth, one in enumerate(others) if number < _ROUNDS - 8 and (number + nth) % 8 == 0]
        since |= dict.fromkeys(await lines.queue(posting, 3), number)
        waits += [number - since.pop(claim.run_id) + 1 for claim in await places.next_round() if claim.run_id in since]
    assert not since
    await lines.end(places.taken)
    return waits


async def test_long_line_of_one_at_most_doubles_the_wait_of_others(pool: Pool, lines: Lines) -> None:
    """1,000 queued runs of a workspace leave the p95 of nine others, who keep the workers busy without wanting more
    than their share, within twice of what it was."""
    others = [new_id() for _ in range(OTHERS)]
    alone = await _waits(pool, lines, others)
    await lines.queue([new_id()], 1000, due_s=30)
    beside = await _waits(pool, lines, others)
    assert len(alone) == len(beside) == 3 * OTHERS * (_ROUNDS - 8) // 8
    assert quantiles(beside, n=20)[-1] <= 2 * quantiles(alone, n=20)[-1]


async def test_workspace_with_less_at_work_comes_first(pool: Pool, lines: Lines) -> None:
    """What a workspace has running counts as turns that it had, however long the line behind it has waited."""
    busy, quiet = new_id(), new_id()
    await lines.queue([busy], 3)
    await claim_runs(pool, "worker", 600, 3)
    await lines.queue([busy], 9, due_s=50)
    await lines.queue([quiet], 9)
    assert _by_workspace(await claim_runs(pool, "worker", 600, 3)) == {quiet: 3}
    assert _by_workspace(await claim_runs(pool, "worker", 600, 5)) == {quiet: 2, busy: 3}


async def test_one_claim_goes_round(pool: Pool, lines: Lines) -> None:
    """Many runs claimed at once are spread as if they were claimed one by one; a line's oldest run comes first."""
    long, short = new_id(), new_id()
    oldest, *_ = await lines.queue([long], 1, due_s=9)
    await lines.queue([long], 8)
    few = await lines.queue([short], 2)
    claims = await claim_runs(pool, "worker", 600, 6)
    assert _by_workspace(claims) == {long: 4, short: 2}
    assert {oldest, *few} <= {claim.run_id for claim in claims}


async def test_previous_version_claims_in_turn(pool: Pool, lines: Lines) -> None:
    """Workers that know no priorities get runs of both, go round as well, and are told what they were told before."""
    long, short = new_id(), new_id()
    await lines.queue([long], 9, due_s=30)
    await lines.queue([short], 1)
    await lines.queue([short], 1, BACKGROUND)
    rows = await pool.fetch("select * from claim_runs('old worker', '10 s', 2)")
    assert {row["workspace_id"] for row in rows} == {long, short}
    assert [list(row.keys()) for row in rows] == [["workspace_id", "run_id", "attempt"]] * 2
    assert len(await pool.fetch("select * from claim_runs('old worker', '10 s', 20)")) == 9


@pytest.mark.parametrize("claimers", [4, 12])
async def test_claims_at_once_come_out_with_different_runs(pool: Pool, lines: Lines, claimers: int) -> None:
    """Workers that all want the head of the same line, or of few, get a run each: no claim is in vain, none waits."""
    queued = await lines.queue([new_id()], claimers - 2) | await lines.queue([new_id(), new_id()])
    claims = await asyncio.gather(*(claim_runs(pool, f"worker {n}", 600, 1) for n in range(claimers)))
    assert sorted(claim.run_id for [claim] in claims) == sorted(queued)


async def test_heads_that_are_held_keep_nobody_from_the_rest(pool: Pool, lines: Lines, database_url: str) -> None:
    """However many runs at the head of a line somebody holds, the claim looks behind them."""
    queued = list(await lines.queue([new_id()], 30))
    async with open_lines(database_url) as other, other.connection.transaction():
        await other.connection.execute("select from runs where id = any ($1) for update", queued[:25])
        claims = await claim_runs(pool, "worker", 600, 5)
    assert sorted(claim.run_id for claim in claims) == sorted(queued[25:])


@pytest.mark.parametrize("cap", [0, 1, 3])
async def test_claim_does_not_walk_along_the_lines(pool: Pool, lines: Lines, cap: int) -> None:
    """It reads a few entries of each line, however long it is, and none of runs that have ended; also where the long
    line is held back by a cap, or might be."""
    await upsert_default(pool, "running_runs", cap)
    await lines.queue([busy := new_id()], 1)
    await claim_runs(pool, "worker", 600, 1)
    await lines.queue([busy], 5000)
    await lines.queue([new_id() for _ in range(10)], 20)
    ended = await lines.queue([new_id()], 1000)
    await lines.end(ended)
    await lines.connection.execute("vacuum analyze runs")
    async with lines.connection.transaction():
        before = await lines.connection.fetchval(_ENTRIES_READ)
        claimed = await lines.connection.fetch("select * from claim_runs('worker', '10 s', 1, '{0,1}')")
        read = await lines.connection.fetchval(_ENTRIES_READ) - before
    assert len(claimed) == 1
    assert 10 < read < 250


async def test_interactive_runs_are_claimed_before_background_ones(pool: Pool, lines: Lines) -> None:
    """Whoever has posted first, and however much a workspace has running."""
    busy, batch = new_id(), new_id()
    await lines.queue([busy], 2)
    await claim_runs(pool, "worker", 600, 2)
    late = await lines.queue([batch], 3, BACKGROUND, due_s=50)
    soon = await lines.queue([busy], 2)
    assert {claim.run_id for claim in await claim_runs(pool, "worker", 600, 2)} == set(soon)
    rest = await claim_runs(pool, "worker", 600, 9)
    assert {(claim.run_id, claim.priority) for claim in rest} == {(run_id, BACKGROUND) for run_id in late}


@pytest.mark.parametrize(("count", "share"), [(1, 1), (5, 1), (20, 2)])
async def test_background_runs_are_not_starved(pool: Pool, lines: Lines, count: int, share: int) -> None:
    """Those that have been due for a minute get a tenth of the places, one at least and no more, as long as others
    wait; the rest is for interactive runs."""
    pressing, batch = [new_id() for _ in range(3)], new_id()
    await lines.queue([batch], 50, BACKGROUND, due_s=A_MINUTE_S)
    places = Places(pool, lines, count)
    for _ in range(12):
        await lines.queue(pressing, count)
        await places.next_round()
        priorities = Counter(claim.priority for claim in places.taken.values())
        assert priorities == Counter({BACKGROUND: share, INTERACTIVE: count - share})


async def test_lone_place_serves_in_the_order_of_patience(pool: Pool, lines: Lines) -> None:
    """Where there is but one place, an interactive run waits for those background ones that are older by a minute."""
    await lines.queue([workspace := new_id()], 2, BACKGROUND, due_s=A_MINUTE_S)
    await lines.queue([workspace], 2, BACKGROUND)
    await lines.queue([workspace], 2)
    places = Places(pool, lines, 1)
    order = [claim.priority for _ in range(60) for claim in await places.next_round()]
    assert order == [BACKGROUND] * 2 + [INTERACTIVE] * 2 + [BACKGROUND] * 2


async def test_worker_claims_what_it_serves(pool: Pool, lines: Lines) -> None:
    """A worker for one priority leaves the other's runs, even when nothing else is due."""
    interactive = await lines.queue([new_id()], 2)
    background = await lines.queue([new_id()], 2, BACKGROUND, due_s=A_MINUTE_S)
    for priority, runs in ((BACKGROUND, background), (INTERACTIVE, interactive)):
        claims = await claim_runs(pool, "worker", 600, 1, [priority])
        claims += await claim_runs(pool, "worker", 600, 9, [priority])
        assert sorted(claim.run_id for claim in claims) == sorted(runs)
