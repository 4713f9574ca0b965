"""Lines of the table."""

from collections.abc import Callable
from typing import NamedTuple

import msgspec

Say = Callable[[str], None]


class Row(msgspec.Struct, rename="camel", kw_only=True, omit_defaults=True):
    """One line of the table. `holds` says whether `value` meets `target`."""

    name: str
    value: float
    unit: str
    target: str
    holds: bool
    baseline: float | None = None


class Found(NamedTuple):
    """What a part of the measurement has found: figures beside a fault of ours are worth nothing."""

    rows: list[Row]
    faults: int


def at_most(name: str, value: float, unit: str, limit: float, base: float | None = None) -> Row:
    """A figure that is to be small."""
    return Row(name=name, value=value, unit=unit, target=f"<= {limit:g}", holds=value <= limit, baseline=base)


def at_least(name: str, value: float, unit: str, limit: float, base: float | None = None) -> Row:
    """A figure that is to be large."""
    return Row(name=name, value=value, unit=unit, target=f">= {limit:,.0f}", holds=value >= limit, baseline=base)


def beside(name: str, value: float, unit: str, base: float | None = None) -> Row:
    """A figure without a target, for what stands next to it."""
    return Row(name=name, value=value, unit=unit, target="", holds=True, baseline=base)


def figure_text(value: float | None) -> str:
    """A figure as the table and the plot show it."""
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
