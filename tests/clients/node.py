"""Scripts that run the real packages of npm, spoken with line by line."""

import asyncio
import fcntl
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from common.devserver.npm import Node, install_packages

_HERE = Path(__file__).parent
_LINE_LIMIT = 64 * 1024 * 1024


class NodeScript:
    """A script that prints a line of JSON with an `event` for each thing that it sees, and reads such lines."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.seen: list[dict[str, Any]] = []

    async def next(self, event: str, timeout_s: float = 60) -> dict[str, Any]:
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
    """`script` of tests/clients/`folder`, with the packages of its lock file and `env`; killed at the end."""
    home = _HERE / folder
    node = (await asyncio.to_thread(_install, home)).node
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


def _install(home: Path) -> Node:
    """However many test processes there are, one installs, and the others wait for it."""
    with (home / ".install.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return install_packages(home)
