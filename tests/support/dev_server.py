"""`throughline dev` as a person starts it."""

import os
import re
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil

from common.devserver.child import Child, spawn
from tests.support.eventually import eventually

_COMMAND = Path(sys.executable).with_name("throughline")
_ROOT = Path(__file__).resolve().parents[2]
_STARTED_S = 40
_STOPPED_S = 60
_OWN_SETTINGS = ("DATABASE_URL", "REDIS_URL", "MIGRATION_DATABASE_URL", "JWT_SECRET")


class DevServer:
    """A running `throughline dev`."""

    def __init__(self, child: Child, log: Path) -> None:
        self.child = child
        self._log = log

    def output(self) -> str:
        """All that it has printed so far."""
        return self._log.read_text(errors="replace")

    @property
    def address(self) -> str:
        match = re.search(r"ready at (http://\S+)", self.output())
        assert match is not None, self.output()
        return match[1]

    @property
    def token(self) -> str:
        match = re.search(r"^TOKEN=(\S+)$", self.output(), re.MULTILINE)
        assert match is not None, self.output()
        return match[1]

    async def until_printed(self, text: str) -> None:
        """Waits for `text` in what it prints; fails with all of it when it ends without."""

        def printed() -> bool:
            if text in self.output():
                return True
            if self.child.returncode is not None:
                raise RuntimeError(f"it ended with status {self.child.returncode}:\n{self.output()}")
            return False

        await eventually(printed, _STARTED_S)

    async def until_ready(self) -> None:
        await self.until_printed("Ctrl-C stops everything.")

    async def until_ended(self) -> int:
        status = await self.child.wait(_STOPPED_S)
        assert status is not None, self.output()
        return status

    def processes(self) -> list[psutil.Process]:
        """Everything that it has started, down to the last child of a child."""
        return list(psutil.Process(self.child.pid).children(recursive=True))


@asynccontextmanager
async def dev_server(
    data: Path, *arguments: str, env: dict[str, str] | None = None, command: tuple[str | Path, ...] = ()
) -> AsyncIterator[DevServer]:
    """`throughline dev` on a port that the system chooses; stopped with SIGTERM afterwards."""
    inherited = {name: value for name, value in os.environ.items() if name not in _OWN_SETTINGS}
    with tempfile.NamedTemporaryFile(prefix="throughline-dev-", suffix=".log") as log:
        child = spawn(
            [*(command or (_COMMAND,)), "dev", "--port", "0", "--data", data, *arguments],
            # SIGTERM would let it stop in order; this way not even that is waited for.
            on_parent_death=signal.SIGKILL,
            env={**inherited, **(env or {})},
            cwd=_ROOT,
            stdout=log.file,
        )
        server = DevServer(child, Path(log.name))
        try:
            yield server
        finally:
            await child.stop(signal.SIGTERM, _STOPPED_S)


def is_gone(process: psutil.Process) -> bool:
    """Whether it has ended (what nobody has collected yet counts as ended)."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
