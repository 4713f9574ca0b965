"""What the documentation shows is what is there."""

import re
from datetime import date
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest

from api.prices import load_prices
from common.model.events import Event, decode_event

_ROOT = Path(__file__).resolve().parents[2]
_PAGES = [_ROOT / "README.md", _ROOT / "ARCHITECTURE.md", *sorted((_ROOT / "docs").rglob("*.md"))]


def test_readme_shows_the_browser_example_as_it_is() -> None:
    """The page in the README is the file, byte for byte."""
    [shown] = re.findall(r"```html\n(.*?)```", (_ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    assert shown == (_ROOT / "docs/examples/browser.html").read_text("utf-8")


def test_stream_page_gives_a_true_example_of_every_event() -> None:
    """Each example in docs/stream.md is an event, and none of the types is left out."""
    text = (_ROOT / "docs/stream.md").read_text("utf-8")
    examples = re.findall(r"^(\{\"type\".*\})$", text, re.MULTILINE)

    events = [decode_event(example.encode()) for example in examples]

    assert {type(event) for event in events} == set(Event.__args__)
    for example, event in zip(examples, events, strict=True):
        assert msgspec.json.decode(example) == msgspec.to_builtins(event), example


def test_usage_page_shows_prices_that_work() -> None:
    """The example in docs/usage.md is a setting that the API takes, as the text around it explains it."""
    [example] = re.findall(r"```json\n(.*?)```", (_ROOT / "docs/usage.md").read_text("utf-8"), re.DOTALL)
    prices = load_prices(example)
    assert prices is not None

    asked = [("claude-big-1", date(2026, 11, 1)), ("claude-1", date(2026, 11, 1)), ("claude-1", date(2026, 10, 31))]
    found = [prices.find("anthropic", model, day) for model, day in asked]
    assert [price and price.input for price in found] == [5, Decimal("2.5"), 3]
    assert prices.find("openai", "gpt", date(2026, 11, 1)) is None


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: page.name)
def test_page_links_to_what_exists(page: Path) -> None:
    """Every link leads to a file that is there, and to a heading that it has."""
    for target, heading in re.findall(r"\]\((?!https?://)([^)#]*)(?:#([^)]*))?\)", page.read_text("utf-8")):
        file = page.parent / target if target else page
        assert file.exists(), target
        if heading and file.suffix == ".md":
            assert heading in _headings(file), f"{target}#{heading}"


def test_every_promise_of_security_names_its_test() -> None:
    """Each row of the table leads to test files that are there and hold tests."""
    text = (_ROOT / "docs/security.md").read_text("utf-8")
    [table] = re.findall(r"## Promises\n((?:\|.*\n)+)", text)
    promises = table.splitlines()[2:]

    assert len(promises) >= 17
    for promise in promises:
        held_by = re.findall(r"\]\(\.\./(tests/[\w/]+\.py)\)", promise.rpartition(" | ")[2])
        assert held_by, promise
        for test in held_by:
            assert re.search(r"^(async )?def test_", (_ROOT / test).read_text("utf-8"), re.MULTILINE), test


def _headings(page: Path) -> set[str]:
    """The names by which a page's headings are linked to."""
    titles = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
