"""What docs/operations says of figures is true of those that the processes tell."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from tests.support.metric_names import own_series

_FOLDER = Path(__file__).resolve().parents[2] / "docs/operations"
_RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((_FOLDER / "alerts.yml").read_text("utf-8"))["groups"] for rule in group["rules"]
]
_PANELS: list[dict[str, Any]] = [
    panel for panel in json.loads((_FOLDER / "dashboard.json").read_text("utf-8"))["panels"] if panel["type"] != "row"
]
_QUERIES = {rule["alert"]: rule["expr"] for rule in _RULES} | {
    f"{panel['title']} {target['refId']}": target["expr"].replace("$__rate_interval", "1m")
    for panel in _PANELS
    for target in panel["targets"]
}
_OF_PROMETHEUS = frozenset({"instance", "job", "le"})
_OF_ITS_CLIENT = frozenset({"process_cpu_seconds_total", "process_resident_memory_bytes"})


def test_page_lists_every_figure_with_its_labels() -> None:
    """The tables and the registries name the same figures, each with the same labels."""
    documented: dict[str, frozenset[str]] = {}
    page = (_FOLDER / "metrics.md").read_text("utf-8")
    for cells in re.findall(r"^\| (`throughline_[^|]*) \|([^|]*)\|", page, re.MULTILINE):
        names, labels = (re.findall(r"`([a-z_]+)`", cell) for cell in cells)
        documented |= dict.fromkeys(names, frozenset(labels))
    told = {
        re.sub("_(bucket|count|sum)$", "", name): labels - {"le"}
        for name, labels in own_series().items()
        if not name.endswith("_created")
    }

    assert documented == told


@pytest.mark.parametrize("query", _QUERIES.values(), ids=_QUERIES.keys())
def test_query_asks_for_figures_and_labels_that_are_told(query: str) -> None:
    """Alerts and dashboard: each expression is one, and names what a process tells, with labels that it has there."""
    series = own_series() | dict.fromkeys(_OF_ITS_CLIENT, frozenset[str]())
    parts = list(_parts(promql_parser.parse(query)))
    asked = [part for part in parts if isinstance(part, promql_parser.VectorSelector)]
    assert asked
    for selector in asked:
        known = series[str(selector.name)] | _OF_PROMETHEUS
        assert {matcher.name for matcher in selector.matchers.matchers} <= known
    for part in parts:
        if isinstance(part, promql_parser.AggregateExpr) and part.modifier is not None:
            [inner] = {str(each.name) for each in _parts(part) if isinstance(each, promql_parser.VectorSelector)}
            assert set(part.modifier.labels) <= series[inner] | _OF_PROMETHEUS


def test_dashboard_shows_every_figure() -> None:
    """What is told and never looked at would not have to be told."""
    shown = {
        str(part.name)
        for query in _QUERIES.values()
        for part in _parts(promql_parser.parse(query))
        if isinstance(part, promql_parser.VectorSelector)
    }
    figures = {re.sub(r"_(bucket|count|sum)$", "", name) for name in shown}
    page = (_FOLDER / "metrics.md").read_text("utf-8")
    documented = set(re.findall(r"`(throughline_[a-z_]+)`", page))
    assert documented <= figures


def test_every_alert_has_its_page() -> None:
    """What it means and what to do stands under its name, and nothing stands there that is no alert."""
    headings = re.findall(r"^## (\w+)$", (_FOLDER / "alerts.md").read_text("utf-8"), re.MULTILINE)
    assert headings == [rule["alert"] for rule in _RULES]
    for rule in _RULES:
        assert rule["annotations"]["runbook"] == f"alerts.md#{rule['alert'].lower()}"
        assert rule["labels"]["severity"] in ("page", "warn")
        assert rule["annotations"]["summary"]


def _parts(expression: Any) -> Iterator[Any]:
    """The expression and all that it is made of."""
    yield expression
    for name in ("lhs", "rhs", "expr", "param", "vector_selector"):
        inner = getattr(expression, name, None)
        if isinstance(inner, promql_parser.Expr):
            yield from _parts(inner)
    for argument in getattr(expression, "args", ()):
        yield from _parts(argument)
