"""The built-in tools and the calculator of the example."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from common.model.run_state import Effect
from docs.examples.tools_example import calculate
from worker.tools import TOOLS
from worker.tools.base import ToolContext
from worker.tools.execute import ToolOutcome, execute

CONTEXT = ToolContext(
    run_id=uuid4(),
    conversation_id=uuid4(),
    workspace_id=uuid4(),
    user="ada",
    tool_call_id="call_1",
    idempotency_key="k",
    attempt=1,
)


async def ask(name: str, arguments: dict[str, Any]) -> ToolOutcome:
    chosen = {"calculate": calculate, **TOOLS}[name]
    return await execute(chosen, arguments, CONTEXT, timeout_s=5)


def test_built_in_tools_are_registered_under_their_names() -> None:
    """The registry holds each tool under the name that the model uses."""
    assert {entry.name for entry in TOOLS.values()} == set(TOOLS)
    assert {name for name, entry in TOOLS.items() if entry.effect is Effect.READ} == {
        *("current_time", "doc_list", "doc_search", "doc_read"),
    }
    assert {name for name, entry in TOOLS.items() if entry.effect is Effect.TRANSACTIONAL} == {
        *("doc_create", "doc_edit", "doc_append", "doc_delete"),
    }


@pytest.mark.parametrize(("arguments", "zone"), [({}, "UTC"), ({"timezone": "Asia/Kolkata"}, "Asia/Kolkata")])
async def test_current_time_is_now_in_the_zone_asked_for(arguments: dict[str, Any], zone: str) -> None:
    """The answer is this moment, with the zone's offset; without a zone it is UTC."""
    answer = msgspec.json.decode((await ask("current_time", arguments)).content)
    told = datetime.fromisoformat(answer["time"])
    assert abs(datetime.now(UTC) - told) < timedelta(seconds=5)
    assert told.utcoffset() == (timedelta(0) if zone == "UTC" else timedelta(hours=5, minutes=30))
    assert answer["timeZone"] == zone
    assert answer["weekday"] == told.strftime("%A")


@pytest.mark.parametrize(
    "zone", ["Mars/Base", "Europe", "../etc/passwd", "/etc/localtime", "a\x00b", "\ud800", "tzdata.zi"]
)
async def test_current_time_in_an_unknown_zone_is_an_error_that_helps(zone: str) -> None:
    """A zone that does not exist, or that tries to leave the zone files, gets a clear answer."""
    content, is_error, _ = await ask("current_time", {"timezone": zone})
    assert is_error
    assert "Europe/Berlin" in content


@pytest.mark.parametrize(
    ("expression", "result"),
    [
        ("1 + 2 * 3", "7"),
        ("0.1 + 0.2", "0.3"),
        ("(1299 * 12) * 1.19", "18549.72"),
        ("-2 ** 2", "-4"),
        ("7 % 4 - +1", "2"),
        ("10 / 4", "2.5"),
        ("10 ** 20", "100000000000000000000"),
        ("2 ** 1000", "1.071508607186267320948425049E+301"),
        ("0.12345678901234567890123456 * 1", "0.12345678901234567890123456"),
        ("0 * 5", "0"),
        ("-" * 298 + "1", "1"),
    ],
)
async def test_calculate_gives_the_exact_result(expression: str, result: str) -> None:
    """Arithmetic is decimal: exact to 28 digits, with the usual precedence."""
    assert (await ask("calculate", {"expression": expression})).content == result


@pytest.mark.parametrize(
    "expression",
    [
        "__import__('os').getcwd()",
        "a + 1",
        "1 if 1 else 2",
        "True + 1",
        "'a' * 3",
        "1j",
        "9 ** 9 ** 9",
        "9e99999999999999999999 * 1",
        "1 / 0",
        "0 ** 0",
        "1 +",
        "(" * 148 + "a" + ")" * 148,
        "-" * 298 + "1e",
        "1\x00",
        "lambda: 1",
    ],
)
async def test_calculate_refuses_what_is_no_bounded_arithmetic(expression: str) -> None:
    """Names, calls, huge powers and nonsense get an error answer, quickly, and are never evaluated."""
    content, is_error, _ = await ask("calculate", {"expression": expression})
    assert is_error
    assert content.startswith("This ")
