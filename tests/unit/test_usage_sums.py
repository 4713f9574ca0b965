"""Usage: sums of calls become groups, with a cost that is exact or unknown."""

from datetime import date
from typing import Any
from uuid import UUID

import pytest

from api.prices import load_prices
from api.usage import add_up
from common.model.usage import UsageGroup
from common.store.usage import Spent

DAYS = [date(2026, 11, 1), date(2026, 11, 2)]
PRICES = load_prices(
    '{"currency": "USD", "prices": [{"provider": "p", "model": "m*", "input": 0.1, "output": 3, "cachedInput": 0.01}]}'
)
AGENT = UUID(int=1)


def _spent(*, model: str = "m1", period: int = 1, calls: int = 1, **fields: Any) -> Spent:
    figures = dict.fromkeys(
        (
            *("estimated_calls", "input_tokens", "plain_input_tokens", "cached_input_tokens", "cache_write_tokens"),
            *("output_tokens", "reasoning_tokens", "estimated_tokens"),
        ),
        0,
    )
    named = {"provider": "p", "agent_id": None, "user": None}
    return Spent(period=period, model=model, calls=calls, **{**named, **figures, **fields})


def _costs(groups: list[UsageGroup]) -> list[tuple[str | None, str | None]]:
    return [(group.model, group.cost) for group in groups]


def test_cost_has_every_digit() -> None:
    """Ten thousand times a tenth of a millionth is a thousandth, not nearly one; a huge sum loses no small part."""
    spent = [_spent(plain_input_tokens=1)] * 10_000 + [_spent(output_tokens=10**18)]
    total, _ = add_up(spent, DAYS, ["model"], PRICES)
    assert total.cost == "3000000000000.001"


@pytest.mark.parametrize(
    ("tokens", "cost"), [(0, "0"), (1, "0.000003"), (500_000, "1.5"), (1_000_000, "3"), (10**9, "3000")]
)
def test_cost_is_a_plain_decimal(tokens: int, cost: str) -> None:
    """No exponent, no zeros at the end."""
    total, _ = add_up([_spent(output_tokens=tokens)], DAYS, [], PRICES)
    assert total.cost == cost


def test_cost_of_a_model_without_a_price_is_unknown() -> None:
    """It is null, never 0, and so is every sum with such a call in it; how many there are is told."""
    total, groups = add_up([_spent(), _spent(model="other", calls=3)], DAYS, ["model"], PRICES)
    assert _costs(groups) == [("m1", "0"), ("other", None)]
    assert [group.unpriced_calls for group in groups] == [0, 3]
    assert (total.cost, total.unpriced_calls, total.calls) == (None, 3, 4)


def test_nothing_is_priced_without_prices() -> None:
    """Neither calls nor their absence cost anything that could be told."""
    assert add_up([], DAYS, ["day"], None)[0].cost is None
    total, _ = add_up([_spent(output_tokens=5)], DAYS, ["day"], None)
    assert (total.cost, total.unpriced_calls) == (None, 1)


def test_nothing_costs_nothing() -> None:
    """With prices and without a call there is no group, and the total is zero."""
    total, groups = add_up([], DAYS, ["day"], PRICES)
    assert (total.cost, total.calls, groups) == ("0", 0, [])


def test_each_period_has_its_own_price() -> None:
    """A group that spans a change of prices adds up what each part of it cost."""
    prices = load_prices(
        '{"currency": "EUR", "prices": ['
        '{"provider": "p", "model": "*", "from": "2026-11-02", "input": 0, "output": 5},'
        '{"provider": "p", "model": "*", "input": 0, "output": 1}]}'
    )
    spent = [_spent(output_tokens=1_000_000), _spent(period=2, output_tokens=1_000_000)]
    [group] = add_up(spent, DAYS, ["model"], prices)[1]
    assert group.cost == "6"


def test_groups_stand_in_one_order() -> None:
    """Newest day first, then by provider, model, agent (none before all others) and user; whatever Postgres' order."""
    spent = [
        _spent(period=period, model=model, agent_id=agent_id, user=user)
        for user in ("b", "a")
        for agent_id in (AGENT, None)
        for model in ("m2", "m1")
        for period in (1, 2)
    ]
    _, groups = add_up(spent, DAYS, ["day", "model", "agent", "user"], PRICES)
    places = [(g.day, g.model, g.agent_id, g.user) for g in groups]
    assert places == [
        (day, model, agent_id, user)
        for day in reversed(DAYS)
        for model in ("m1", "m2")
        for agent_id in (None, AGENT)
        for user in ("a", "b")
    ]


def test_total_is_the_sum_of_the_groups() -> None:
    """Every figure of every part is counted once in its group and once in the total."""
    names = (
        *("calls", "estimated_calls", "input_tokens", "output_tokens", "cached_input_tokens", "cache_write_tokens"),
        *("reasoning_tokens", "estimated_tokens"),
    )
    spent = [_spent(period=n % 2 + 1, **{name: 10**k * n for k, name in enumerate(names)}) for n in range(1, 5)]
    total, groups = add_up(spent, DAYS, ["day"], PRICES)
    assert [group.calls for group in groups] == [1 + 3, 2 + 4]
    for power, name in enumerate(names):
        assert getattr(total, name) == sum(getattr(group, name) for group in groups) == 10**power * 10
