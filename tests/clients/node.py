"""Scripts that run the real packages of npm, spoken with line by line."""

import asyncio
import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

_HERE = Path(__file__).parent
_LINE_LIMIT = 64 * 1024 * 1024


class NodeScript:
    """A script that prints a line of JSON with an `event` for each thing that it sees, and reads such lines."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.seen: list[dict[str, Any]] = []

    async def next(self, event: str, timeout_s: float = 30) -> dict[str, Any]:
        """The next line with this event; those before it are kept in `seen` as well.

        Fails with all that was printed when the script ends first or `timeout_s` pass.
        """
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(timeout_s):
                while line := await self._process.stdout.readline():
                    if not line.startswith(b"{"):
                        print(line.decode(errors="replace"), end="", file=sys.stderr)
                        continue
                    self.seen.append(json.loads(line))
                    if self.seen[-1]["event"] == event:
                        return self.seen[-1]
        except TimeoutError:
            raise AssertionError(f"no {event!r} within {timeout_s} s, but {self.seen}") from None
        raise AssertionError(f"the script ended without {event!r}: {self.seen}")

    def tell(self, message: Mapping[str, Any]) -> None:
        """A line of JSON for the script's standard input."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\n")


@asynccontextmanager
async def node_script(folder: str, script: str, env: Mapping[str, str]) -> AsyncIterator[NodeScript]:
    """`script` of tests/clients/`folder`, with the packages of its lock file and `env` besides PATH; killed at the end.

    Skips the test on a machine without Node.
    """
    node = shutil.which("node")
    if node is None or shutil.which("npm") is None:
        pytest.skip("needs node and npm: no real npm package can run on this machine")
    home = _HERE / folder
    await asyncio.to_thread(_install, home)
    process = await asyncio.create_subprocess_exec(
        node,
        script,
        cwd=home,
        env={"PATH": os.environ["PATH"], **env},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=_LINE_LIMIT,
    )
    try:
        yield NodeScript(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def _install(home: Path) -> None:
    """`npm ci`, once for each state of the lock file, however many test processes there are."""
    stamp = home / "node_modules" / ".installed"
    lock_file = (home / "package-lock.json").read_bytes()
    with (home / ".install.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if stamp.exists() and stamp.read_bytes() == lock_file:
            return
        subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=home, check=True, capture_output=True)
        stamp.write_bytes(lock_file)
