"""What model calls cost: MODEL_PRICES, read once. Money is exact: decimals all the way, never a float."""

import re
from datetime import date
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from common.config import ConfigError
from common.config_wording import entry_problem
from common.store.usage import Spent

_MILLION = -6
_MOST = Decimal(1_000_000_000)
_PLACES = 12

Pattern = Annotated[str, Meta(min_length=1)]


class Price(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True, frozen=True):
    """Money per million tokens of the models that `provider` and `model` fit (`*` stands for anything), since a day.

    Reasoning is output. Input that was read from the provider's cache, or written to it, costs what `input` does
    where nothing else is said.
    """

    provider: Pattern
    model: Pattern
    since: date | None = msgspec.field(name="from", default=None)
    input: Decimal
    output: Decimal
    cached_input: Decimal | None = None
    cache_write: Decimal | None = None

    def fits(self, provider: str, model: str, day: date) -> bool:
        """Whether calls of this model on this day are priced by it."""
        holds = self.since is None or self.since <= day
        return holds and _fits(self.provider, provider) and _fits(self.model, model)

    def of(self, spent: Spent) -> Decimal:
        """What the calls cost, exactly where the decimal context holds all digits."""
        cached = self.input if self.cached_input is None else self.cached_input
        written = self.input if self.cache_write is None else self.cache_write
        tokens_by_price = (
            spent.plain_input_tokens * self.input
            + spent.cached_input_tokens * cached
            + spent.cache_write_tokens * written
            + spent.output_tokens * self.output
        )
        return tokens_by_price.scaleb(_MILLION)


class Prices(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True, frozen=True):
    """The prices of one currency (ISO 4217); of those that fit a call, the first counts."""

    currency: str
    prices: list[Price]

    def find(self, provider: str, model: str, day: date) -> Price | None:
        """The price of a model on a day; None when it is not known."""
        return next((price for price in self.prices if price.fits(provider, model, day)), None)

    def changes(self, first: date, last: date) -> list[date]:
        """The days after `first`, up to `last`, on which some price begins to hold; ascending."""
        return sorted({p.since for p in self.prices if p.since is not None and first < p.since <= last})


def load_prices(setting: str) -> Prices | None:
    """The prices that MODEL_PRICES holds as JSON, or that the file holds which it names; None when it is empty.

    Raises ConfigError.
    """
    if not setting:
        return None
    try:
        text = setting if setting.startswith("{") else Path(setting).read_text("utf-8")
        prices = msgspec.json.decode(text, type=Prices)
    except OSError as error:
        raise ConfigError(f"MODEL_PRICES: {setting} cannot be read: {error.strerror}") from None
    except msgspec.ValidationError as error:
        raise ConfigError(f"MODEL_PRICES: {entry_problem(str(error))}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"MODEL_PRICES must be a JSON object, or the path of a file with one: {error}") from None
    if not re.fullmatch("[A-Z]{3}", prices.currency):
        raise ConfigError(f"MODEL_PRICES: currency must be three capital letters, not {prices.currency!r}")
    for place, price in enumerate(prices.prices):
        _check_money(f"prices[{place}]", price)
        _check_reach(place, prices.prices)
    return prices


def _check_money(name: str, price: Price) -> None:
    for field in msgspec.structs.fields(Price):
        money = getattr(price, field.name)
        if not isinstance(money, Decimal):
            continue
        exponent = money.as_tuple().exponent
        if not isinstance(exponent, int) or not 0 <= money <= _MOST or exponent < -_PLACES:
            raise ConfigError(
                f"MODEL_PRICES: {name}.{field.encode_name} must be from 0 to {_MOST:,}, "
                f"with at most {_PLACES} decimal places"
            )


def _check_reach(place: int, prices: list[Price]) -> None:
    price = prices[place]
    for before, other in enumerate(prices[:place]):
        same = (other.provider, other.model) == (price.provider, price.model)
        if same and (other.since is None or (price.since is not None and other.since <= price.since)):
            raise ConfigError(
                f"MODEL_PRICES: prices[{place}] never counts: prices[{before}] comes first; put the newest first"
            )


def _fits(pattern: str, name: str) -> bool:
    return bool(_compiled(pattern).fullmatch(name))


@lru_cache(maxsize=10_000)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, pattern.split("*"))), re.DOTALL)
