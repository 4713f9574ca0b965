"""The budget of retries: what it allows, what refills it, what it says. The clock is the test's own."""

import structlog

from common.config import load_settings
from worker.run.retry_budget import RetryBudget, open_budgets


class Clock:
    """Stands still until it is told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def _budget(clock: Clock, *, size: int = 4, ratio: float = 0.25, refill_s: float = 10) -> RetryBudget:
    return RetryBudget("p", size=size, ratio=ratio, refill_s=refill_s, clock=clock)


def _taken(budget: RetryBudget, tries: int) -> int:
    return sum(budget.take() for _ in range(tries))


def test_fresh_budget_is_full() -> None:
    """A worker's very first failures are retried, up to the budget's size and no further."""
    assert _taken(_budget(Clock()), 10) == 4


def test_default_budget_pays_both_retries_of_every_run_but_not_of_an_outage() -> None:
    """A lone run in a fresh worker has its two retries; 400 runs at once have one each."""
    settings = load_settings({})
    budgets = open_budgets(settings, ["p", "q"])
    assert _taken(budgets["p"], settings.provider_retries) == settings.provider_retries == 2
    assert 400 <= 2 + _taken(budgets["p"], 2 * settings.worker_max_runs) <= 401
    assert budgets["q"].take(), "each provider has a budget of its own"


def test_success_pays_a_part_of_a_retry_back() -> None:
    """Four whole answers at a ratio of a quarter are one retry, and three are none."""
    budget = _budget(Clock())
    _taken(budget, 4)
    for _ in range(3):
        budget.pay_back()
    assert not budget.take()
    budget.pay_back()
    assert _taken(budget, 10) == 1


def test_time_pays_retries_back() -> None:
    """A worker that has few answers gets its retries again by waiting alone."""
    budget = _budget(clock := Clock())
    _taken(budget, 4)
    clock.now += 9.99
    assert not budget.take()
    clock.now += 0.02
    assert _taken(budget, 10) == 1


def test_budget_holds_no_more_than_its_size() -> None:
    """Neither a thousand good answers nor a quiet night save up for an outage."""
    budget = _budget(clock := Clock())
    for _ in range(1000):
        budget.pay_back()
    clock.now += 36_000
    assert _taken(budget, 100) == 4


def test_retries_of_a_provider_in_trouble_stay_a_fraction() -> None:
    """With half of the requests failing, retries are the bucket, the ratio of what succeeds and the share of time."""
    budget = _budget(clock := Clock(), size=10, ratio=0.1, refill_s=1)
    retries = 0
    for _ in range(1000):
        retries += budget.take()
        budget.pay_back()
        clock.now += 0.01
    assert abs(retries - (10 + 1000 * 0.1 + 1000 * 0.01)) <= 2


def test_outage_is_logged_once_and_its_end_once() -> None:
    """However many runs are refused, and although single retries come back meanwhile; a second outage is news."""
    budget = _budget(clock := Clock())
    with structlog.testing.capture_logs() as logs:
        _taken(budget, 100)
        clock.now += 10
        _taken(budget, 100)
        assert [(log["event"], log["log_level"]) for log in logs] == [("provider_retries_spent", "warning")]
        clock.now += 20
        _taken(budget, 100)
    events = [log["event"] for log in logs]
    assert events == ["provider_retries_spent", "provider_retries_back", "provider_retries_spent"]
    assert {log["provider"] for log in logs} == {"p"}


def test_budget_of_nothing_retries_nothing() -> None:
    """A size of 0 turns retries off."""
    budget = _budget(clock := Clock(), size=0)
    clock.now += 100
    budget.pay_back()
    assert not budget.take()
