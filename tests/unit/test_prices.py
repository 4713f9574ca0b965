"""Prices: which one counts for a call, what it makes of tokens, and what is refused."""

from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from api.prices import Prices, load_prices
from common.config import ConfigError
from common.store.usage import Spent

DAY = date(2026, 11, 21)


def _prices(*entries: dict[str, Any]) -> Prices:
    prices = load_prices(msgspec.json.encode({"currency": "USD", "prices": list(entries)}).decode())
    assert prices is not None
    return prices


def _entry(**fields: Any) -> dict[str, Any]:
    return {"provider": "p", "model": "m", "input": "1", "output": "2", **fields}


def _spent(**figures: int) -> Spent:
    names = [field.name for field in msgspec.structs.fields(Spent) if field.type is int]
    return Spent(provider="p", model="m", agent_id=None, user=None, **{**dict.fromkeys(names, 0), **figures})


def test_no_setting_is_no_prices() -> None:
    """There is no list of prices but the operator's."""
    assert load_prices("") is None


def test_prices_come_from_a_file_as_well(tmp_path: Path) -> None:
    """What does not begin as an object names a file that holds one."""
    file = tmp_path / "prices.json"
    file.write_text('{"currency": "EUR", "prices": []}')
    assert load_prices(str(file)) == Prices(currency="EUR", prices=[])


@pytest.mark.parametrize("number", ["0.1", "3", '"2.50"', "0.300000000001", "1e-6"])
def test_price_is_the_decimal_that_is_written(number: str) -> None:
    """A number or a text: no digit is lost on the way through a float."""
    text = f'{{"currency": "USD", "prices": [{{"provider": "p", "model": "m", "input": {number}, "output": 0}}]}}'
    prices = load_prices(text)
    assert prices is not None
    assert prices.prices[0].input == Decimal(number.strip('"'))


@pytest.mark.parametrize(
    ("provider", "model", "fits"),
    [
        ("p", "m", True),
        ("p", "m2", False),
        ("p", "M", False),
        ("*", "m", True),
        ("p", "*", True),
        ("p*", "m*", True),
        ("p", "*m", True),
        ("p", "a*m", False),
        ("p", "m?", False),
        ("*", "*", True),
    ],
)
def test_star_stands_for_anything(provider: str, model: str, fits: bool) -> None:
    """Names are compared whole, in their case; nothing but `*` has a meaning of its own."""
    assert (_prices(_entry(provider=provider, model=model)).find("p", "m", DAY) is not None) is fits


def test_first_price_that_fits_counts() -> None:
    """An exception stands above its rule."""
    prices = _prices(_entry(model="m-mini", input="1"), _entry(model="m*", input="9"))
    found = [prices.find("p", model, DAY) for model in ("m-mini", "m-large", "other")]
    assert [price and price.input for price in found] == [Decimal(1), Decimal(9), None]


def test_price_holds_from_its_day_on() -> None:
    """Before the first one a price is not known; the days on which prices change are told."""
    prices = _prices(_entry(**{"from": "2026-11-10"}, input="3"), _entry(**{"from": "2026-11-01"}, input="2"))
    found = [prices.find("p", "m", date(2026, *day)) for day in ((10, 31), (11, 1), (11, 9), (11, 10))]
    assert [price and price.input for price in found] == [None, Decimal(2), Decimal(2), Decimal(3)]
    assert prices.changes(date(2026, 11, 1), date(2026, 11, 10)) == [date(2026, 11, 10)]
    assert prices.changes(date(2026, 10, 1), date(2026, 11, 9)) == [date(2026, 11, 1)]


def test_each_kind_of_token_has_its_price() -> None:
    """Input from the cache and into it is not paid for twice, and reasoning is part of the output."""
    entry = _entry(input="3", output="15", cachedInput="0.3", cacheWrite="3.75")
    spent = _spent(
        plain_input_tokens=1_000_000,
        cached_input_tokens=10,
        cache_write_tokens=100,
        output_tokens=1000,
        input_tokens=1_000_110,
        reasoning_tokens=900,
    )
    assert _prices(entry).prices[0].of(spent) == Decimal("3") + Decimal("0.000003") + Decimal("0.000375") + Decimal(
        "0.015"
    )


def test_cache_costs_what_input_does_where_nothing_else_is_said() -> None:
    """Neither is free of charge only because it is not named."""
    spent = _spent(plain_input_tokens=1, cached_input_tokens=10, cache_write_tokens=100)
    assert _prices(_entry(input="2")).prices[0].of(spent) == Decimal("0.000222")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (_entry(input="-1"), "prices[0].input must be from 0 to 1,000,000,000, with at most 12 decimal places"),
        (_entry(output="NaN"), "prices[0].output must be from 0"),
        (_entry(output="Infinity"), "prices[0].output must be from 0"),
        (_entry(cachedInput="1e999999999"), "prices[0].cachedInput must be from 0"),
        (_entry(cacheWrite="0.0000000000001"), "prices[0].cacheWrite must be from 0"),
        (_entry(input="much"), "prices[0].input Invalid decimal string"),
        (_entry(input=True), "prices[0].input must be a number, not true or false"),
        (_entry(per="hour"), "prices[0] per is not known"),
        ({"provider": "p", "model": "m", "input": "1"}, "prices[0] output is missing"),
        (_entry(**{"from": "yesterday"}), "prices[0].from Invalid RFC3339"),
        (_entry(model=""), "prices[0].model "),
    ],
)
def test_bad_price_is_refused_with_its_place(entry: dict[str, Any], message: str) -> None:
    """The API does not start with a price that it cannot work with, and says which one it is."""
    with pytest.raises(ConfigError) as caught:
        _prices(entry)
    assert str(caught.value).startswith(f"MODEL_PRICES: {message}")


def test_price_that_can_never_count_is_refused() -> None:
    """The newest of one pattern stands first; behind an older one it would be overlooked for ever."""
    with pytest.raises(ConfigError, match=r"prices\[1\] never counts: prices\[0\] comes first; put the newest first"):
        _prices(_entry(), _entry(**{"from": "2026-11-01"}))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("{", "MODEL_PRICES must be a JSON object, or the path of a file with one: "),
        ("/nowhere/prices.json", "MODEL_PRICES: /nowhere/prices.json cannot be read: No such file or directory"),
        ('{"prices": []}', "MODEL_PRICES: currency is missing"),
        ('{"currency": "dollars", "prices": []}', "MODEL_PRICES: currency must be three capital letters"),
    ],
)
def test_bad_setting_is_refused(setting: str, message: str) -> None:
    """The message names the variable and what is wrong with it."""
    with pytest.raises(ConfigError) as caught:
        load_prices(setting)
    assert str(caught.value).startswith(message)
