"""Loading the user's own tools, and what a tool can see of the worker's environment."""

import asyncio
import os
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from common.config import ConfigError
from docs.examples import tools_example
from worker.tools import TOOLS
from worker.tools.base import ToolContext
from worker.tools.execute import execute
from worker.tools.loading import load_tools

CONTEXT = ToolContext(
    run_id=uuid4(),
    conversation_id=uuid4(),
    workspace_id=uuid4(),
    user="ada",
    tool_call_id="call_1",
    idempotency_key="k1",
    attempt=1,
)

TOOL = """
from worker.tools.base import tool

@tool
async def {name}() -> str:
    "Answers."
    return "{name}"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.startswith("own_")]:
        monkeypatch.delitem(sys.modules, name)
    return tmp_path


def write(path: Path, source: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(source))


def test_load_without_a_module_gives_the_built_in_tools() -> None:
    """A worker without TOOLS_MODULE has the built-in tools."""
    assert load_tools("") == TOOLS


def test_load_adds_the_tools_of_the_module(folder: Path) -> None:
    """The user's tools stand beside the built-in ones; importing a built-in one there is no clash."""
    write(
        folder / "own_module.py",
        TOOL.format(name="mine") + "\nfrom worker.tools.current_time import current_time\n",
    )
    assert load_tools("own_module").keys() - TOOLS.keys() == {"mine"}


def test_load_takes_what_a_package_imports(folder: Path) -> None:
    """A package offers the tools that its __init__ imports."""
    write(folder / "own_package/deep/one.py", TOOL.format(name="one"))
    write(folder / "own_package/two.py", TOOL.format(name="two"))
    write(folder / "own_package/__init__.py", "from .deep.one import one\nfrom .two import two as second\n")
    assert load_tools("own_package").keys() - TOOLS.keys() == {"one", "two"}


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("x = 1", "holds no tool"),
        ("def broken(:", "SyntaxError"),
        ("import own_missing_dependency", "own_missing_dependency"),
        ("raise SystemExit(1)", "SystemExit"),
        (
            "from worker.tools.base import tool\n@tool\nasync def f(a): 'F.'",
            "ToolDefinitionError.*'a' has no type",
        ),
        (TOOL.format(name="current_time"), "second tool named 'current_time'"),
    ],
)
def test_load_of_a_module_that_cannot_serve_names_the_setting_and_the_cause(
    folder: Path, source: str, why: str
) -> None:
    """A module that is broken, empty or in conflict stops the start with TOOLS_MODULE and the cause."""
    write(folder / "own_bad.py", source)
    with pytest.raises(ConfigError, match=rf"(?s)TOOLS_MODULE: .*own_bad.*{why}"):
        load_tools("own_bad")


def test_load_refuses_two_tools_of_one_name_from_two_files(folder: Path) -> None:
    """Two files of a package cannot both offer a tool of one name."""
    write(folder / "own_clash/one.py", TOOL.format(name="same"))
    write(folder / "own_clash/two.py", TOOL.format(name="same"))
    write(folder / "own_clash/__init__.py", "from .one import same\nfrom .two import same as other\n")
    with pytest.raises(ConfigError, match="second tool named 'same'"):
        load_tools("own_clash")


@pytest.mark.parametrize("name", ["own_absent", "own/path.py", ".own_relative", "a,b", "own.", " "])
def test_load_of_a_name_that_is_no_module_is_a_clear_error(folder: Path, name: str) -> None:
    """A name that cannot be imported is a ConfigError, never another exception."""
    with pytest.raises(ConfigError, match="TOOLS_MODULE"):
        load_tools(name)


def test_load_of_the_example_gives_both_of_its_tools() -> None:
    """The documented example loads as documented."""
    assert load_tools("docs.examples.tools_example").keys() - TOOLS.keys() == {"calculate", "add_note"}


async def test_note_of_the_example_is_written_once_per_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A repeated call with the same key adds nothing, also in parallel; another key or workspace does."""
    monkeypatch.setattr(tools_example, "NOTES", tmp_path / "notes")
    add_note = load_tools(tools_example.__name__)["add_note"]
    first, second, elsewhere = (
        CONTEXT,
        replace(CONTEXT, idempotency_key="k2"),
        replace(CONTEXT, workspace_id=uuid4()),
    )
    calls = [first] * 5 + [second] * 5 + [elsewhere]
    answers = await asyncio.gather(
        *(execute(add_note, {"text": "tea\n☕"}, context, timeout_s=10) for context in calls)
    )
    assert not any(answer.is_error for answer in answers)
    lines = {path.stem: path.read_text().splitlines() for path in (tmp_path / "notes").iterdir()}
    assert {name: len(found) for name, found in lines.items()} == {
        str(CONTEXT.workspace_id): 2,
        str(elsewhere.workspace_id): 1,
    }


CANARY_PROGRAM = """
import os, pathlib, subprocess, sys
from common.config import load_settings
from worker.tools.environment import hide_keys

hide_keys(load_settings())
for name, value in sorted(os.environ.items()):
    print(name, value)
child = [sys.executable, "-c", "import os; print(dict(os.environ))"]
print(subprocess.run(child, capture_output=True, check=True).stdout)
environ = pathlib.Path("/proc/self/environ")
print(environ.read_bytes() if environ.exists() else "")
"""


async def test_keys_of_the_worker_are_not_in_the_environment_of_its_tools() -> None:
    """After hide_keys no secret setting is in os.environ, in a child process, or in /proc/self/environ."""
    secrets = {
        "ANTHROPIC_API_KEY": "canary-anthropic",
        "OPENAI_API_KEY": "canary-openai",
        "OPENROUTER_API_KEY": "canary-openrouter",
        "ZAI_API_KEY": "canary-zai",
        "JWT_SECRET": "canary-jwt-secret",
        "DATABASE_URL": "postgresql://app:canary-password@127.0.0.1/x",
        "MIGRATION_DATABASE_URL": "postgresql://owner:canary-owner@127.0.0.1/x",
        "REDIS_URL": "redis://:canary-redis@127.0.0.1/0",
        "QUEUE_REDIS_URL": "redis://:canary-queue@127.0.0.1/0",
        "LOCAL_MODEL_TOKEN": "canary-compatible",
        "METRICS_TOKEN": "canary-metrics",
        "OTEL_EXPORTER_OTLP_HEADERS": "api-key=canary-collector",
    }
    compatible = '[{"name":"local","baseUrl":"http://127.0.0.1:1","apiKeyEnv":"LOCAL_MODEL_TOKEN"}]'
    kept = {"MY_TOOLS_API_KEY": "own-key", "COMPATIBLE_PROVIDERS": compatible}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        CANARY_PROGRAM,
        env={"PATH": os.environ.get("PATH", ""), **secrets, **kept},
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    assert b"MY_TOOLS_API_KEY own-key" in output
    assert b"canary" not in output
