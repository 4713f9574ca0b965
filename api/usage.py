"""What is asked about usage, and how sums of model calls become its answer. Pure.

Prices are applied to sums, which changes nothing: a cost is proportional to its tokens.
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Context, Decimal, Inexact, localcontext
from typing import Any, NamedTuple
from uuid import UUID

from api.errors import invalid
from api.prices import Prices
from common.model.usage import Dimension, UsageGroup, UsageSum
from common.store.usage import Spent

MAX_DAYS = 366
DEFAULT_DAYS = 30

_EXACT = Context(prec=100, traps=[Inexact])
_COUNTED = (
    *("calls", "estimated_calls", "input_tokens", "output_tokens", "cached_input_tokens", "cache_write_tokens"),
    *("reasoning_tokens", "estimated_tokens"),
)


class Periods(NamedTuple):
    """Days from `first` to `last`, cut where a group or a price may begin: period n begins on `days[n - 1]`."""

    first: date
    last: date
    days: list[date]

    @property
    def bounds(self) -> list[datetime]:
        """Where each period begins, and where the last one ends."""
        return [datetime.combine(day, time(), UTC) for day in (*self.days, self.last + timedelta(days=1))]


def cut_into_periods(first: date | None, last: date | None, *, by_day: bool, prices: Prices | None) -> Periods:
    """The last 30 days, where nothing else is said. Raises `invalid_request` for days that are none or too many."""
    if last is None:
        last = datetime.now(UTC).date()
    if last == date.max:
        raise invalid("to: there is no day after it")
    if first is None:
        first = date.fromordinal(max(1, last.toordinal() + 1 - DEFAULT_DAYS))
    count = (last - first).days + 1
    if count < 1:
        raise invalid("from: later than `to`")
    if count > MAX_DAYS:
        raise invalid(f"from: {count:,} days are asked for; at most {MAX_DAYS} are told")
    if by_day:
        return Periods(first, last, [first + timedelta(days=number) for number in range(count)])
    return Periods(first, last, [first, *(prices.changes(first, last) if prices else [])])


class Place(NamedTuple):
    """What the calls of a group have in common: its place in the report."""

    day: date | None
    provider: str | None
    model: str | None
    agent_id: UUID | None
    user: str | None

    @property
    def order(self) -> tuple[int, str, str, str, str]:
        """Newest day first, then by name; who has no agent comes before all that have."""
        newest = 0 if self.day is None else -self.day.toordinal()
        return newest, self.provider or "", self.model or "", str(self.agent_id or ""), self.user or ""


def add_up(
    spent: Sequence[Spent], days: Sequence[date], group_by: Sequence[Dimension], prices: Prices | None
) -> tuple[UsageSum, list[UsageGroup]]:
    """The sum of it all, and the groups in order. Period 1 begins on `days[0]`; in no period does a price change."""
    total = _Sum()
    groups: dict[Place, _Sum] = {}
    with localcontext(_EXACT):
        for part, cost in zip(spent, _costs(spent, days, prices), strict=True):
            groups.setdefault(_place(part, days, group_by), _Sum()).add(part, cost)
            total.add(part, cost)
    in_order = sorted(groups.items(), key=lambda item: item[0].order)
    return (
        UsageSum(**total.figures(prices)),
        [UsageGroup(**place._asdict(), **summed.figures(prices)) for place, summed in in_order],
    )


def place_of(group: UsageGroup) -> Place:
    """Where the group stands."""
    return Place(group.day, group.provider, group.model, group.agent_id, group.user)


class _Sum:
    def __init__(self) -> None:
        self._counts = dict.fromkeys(_COUNTED, 0)
        self._unpriced = 0
        self._cost = Decimal(0)

    def add(self, spent: Spent, cost: Decimal | None) -> None:
        for name in _COUNTED:
            self._counts[name] += getattr(spent, name)
        if cost is None:
            self._unpriced += spent.calls
        else:
            self._cost += cost

    def figures(self, prices: Prices | None) -> dict[str, Any]:
        known = prices is not None and not self._unpriced
        return {**self._counts, "unpriced_calls": self._unpriced, "cost": _plain(self._cost) if known else None}


def _costs(spent: Sequence[Spent], days: Sequence[date], prices: Prices | None) -> list[Decimal | None]:
    """What each part costs; None where its price is not known."""
    if prices is None:
        return [None] * len(spent)
    models = {(part.provider, part.model, part.period) for part in spent}
    found = {(name, model, period): prices.find(name, model, days[period - 1]) for name, model, period in models}
    known = [found[part.provider, part.model, part.period] for part in spent]
    return [None if price is None else price.of(part) for price, part in zip(known, spent, strict=True)]


def _place(part: Spent, days: Sequence[date], group_by: Sequence[Dimension]) -> Place:
    by_model = "model" in group_by
    return Place(
        day=days[part.period - 1] if "day" in group_by else None,
        provider=part.provider if by_model else None,
        model=part.model if by_model else None,
        agent_id=part.agent_id,
        user=part.user,
    )


def _plain(money: Decimal) -> str:
    """`12.5`, never `1.25E+1` or `12.500`."""
    text = f"{money:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
