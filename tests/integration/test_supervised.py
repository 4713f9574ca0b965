"""A supervised process: started again with growing pauses, its output passed on line by line."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import psutil
import pytest

from common.devserver.errors import DevServerError
from common.devserver.supervised import Supervised
from tests.support.eventually import eventually


async def test_supervised_that_keeps_dying_waits_longer_each_time() -> None:
    """Half a second, then twice as long each time."""
    lines: list[str] = []
    process = _supervised(lines, "raise SystemExit(3)")
    keeping = asyncio.create_task(process.keep_running(is_starting=lambda: False))
    await eventually(lambda: len(lines) == 3, 10)
    await process.stop(1)
    await keeping
    assert lines == [f"ended with status 3; starting it again in {pause} s" for pause in ("0.5", "1", "2")]


async def test_supervised_that_finds_a_bad_setting_at_the_start_is_given_up() -> None:
    """Status 2 while the system starts is an error with the last line; later it is started again."""
    lines: list[str] = []
    process = _supervised(lines, "import sys\nprint('hello')\nprint('PORT is odd', file=sys.stderr)\nsys.exit(2)")
    with pytest.raises(DevServerError, match=r"^web cannot start: PORT is odd$"):
        await process.keep_running(is_starting=lambda: True)
    keeping = asyncio.create_task(process.keep_running(is_starting=lambda: False))
    await eventually(lambda: "ended with status 2; starting it again in 0.5 s" in lines)
    await process.stop(1)
    await keeping


async def test_supervised_that_is_stopped_is_not_started_again() -> None:
    """Its last words are passed on, and nothing runs afterwards."""
    lines: list[str] = []
    before = _children()
    farewell = "import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit('bye'))\n"
    process = _supervised(lines, farewell + "print('up')\nsignal.pause()")
    keeping = asyncio.create_task(process.keep_running(is_starting=lambda: False))
    await eventually(lambda: lines == ["up"])
    await process.stop(5)
    await keeping
    assert lines == ["up", "bye"]
    assert _children() == before


async def test_supervised_that_ignores_sigterm_is_killed_after_its_grace() -> None:
    """Nothing holds up the end for longer."""
    lines: list[str] = []
    stubborn = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    process = _supervised(lines, stubborn + "print('up')\nsignal.pause()")
    running = asyncio.create_task(process.run_once())
    await eventually(lambda: lines == ["up"])
    await process.stop(0.1)
    assert await running == -signal.SIGKILL


async def test_supervised_that_prints_a_huge_line_goes_on() -> None:
    """A line beyond 1 MiB arrives in pieces, and what follows it, and what has no end of line."""
    lines: list[str] = []
    process = _supervised(lines, "print('x' * 3_000_000)\nprint('after')\nprint('last', end='')")
    assert await process.run_once() == 0
    assert lines[-2:] == ["after", "last"]
    assert "".join(lines[:-2]) == "x" * 3_000_000


async def test_supervised_that_cannot_be_started_counts_as_ended(tmp_path: Path) -> None:
    """A missing program is told by its name, with the status that shells give."""
    lines: list[str] = []
    process = Supervised("web", ["no-such-program"], {"PATH": str(tmp_path)}, lambda _, line: lines.append(line))
    assert await process.run_once() == 127
    assert lines == ["cannot start no-such-program: No such file or directory"]


def _supervised(lines: list[str], program: str) -> Supervised:
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    return Supervised("web", [sys.executable, "-c", program], env, lambda _, line: lines.append(line))


def _children() -> set[int]:
    """The processes of other tests of this process are among them."""
    return {child.pid for child in psutil.Process().children() if "python" in child.name()}
