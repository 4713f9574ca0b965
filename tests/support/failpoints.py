"""Failpoints of a child process: which are armed, when they fired, and letting go those that block.

What a failpoint does is decided by files in a folder that all processes of a system share, so that the process which
takes over is spared, and a test can wait for the moment.
"""

import asyncio
import os
import signal
from pathlib import Path
from typing import Literal

import msgspec

from common.failpoints import arm
from tests.support.eventually import eventually

VARIABLE = "TEST_FAILPOINTS"


class Failpoint(msgspec.Struct, frozen=True):
    """At the `on`-th passing of `name` (in this process) and later ones, `times` times in all processes together:
    `exit` is a kill -9, `raise` a lost connection, `block` waits until the test lets it go.
    """

    name: str
    action: Literal["exit", "raise", "block"]
    on: int = 1
    times: int = 1


class Armed(msgspec.Struct, frozen=True):
    """What a child process is given in its environment."""

    folder: str
    failpoints: tuple[Failpoint, ...]


class Failpoints:
    """The test's side: what fired, and letting go."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(exist_ok=True)

    def environment(self, failpoints: tuple[Failpoint, ...]) -> dict[str, str]:
        """The variable that arms them in a child."""
        return {VARIABLE: msgspec.json.encode(Armed(str(self._folder), failpoints)).decode()}

    def fired(self, name: str) -> int:
        """How often `name` has acted so far, in all processes."""
        return len(list(self._folder.glob(f"{name}.*.fired")))

    async def wait_until_fired(self, name: str, timeout_s: float = 20) -> None:
        """Returns once `name` has acted."""
        await eventually(lambda: self.fired(name), timeout_s)

    def let_go(self, name: str) -> None:
        """Whoever is blocked at `name`, now or later, goes on."""
        (self._folder / f"{name}.go").touch()


def arm_all(armed: Armed) -> None:
    """Arms them in this process."""
    for failpoint in armed.failpoints:
        arm(failpoint.name, _Action(Path(armed.folder), failpoint))


class _Action:
    def __init__(self, folder: Path, failpoint: Failpoint) -> None:
        self._folder = folder
        self._failpoint = failpoint
        self._passed = 0

    async def __call__(self) -> None:
        self._passed += 1
        if self._passed < self._failpoint.on or not self._take_turn():
            return
        match self._failpoint.action:
            case "exit":
                os.kill(os.getpid(), signal.SIGKILL)
            case "raise":
                raise ConnectionResetError(f"failpoint {self._failpoint.name}")
            case "block":
                go = self._folder / f"{self._failpoint.name}.go"
                while not go.exists():
                    await asyncio.sleep(0.01)

    def _take_turn(self) -> bool:
        """Whether one of the `times` is left: each is a file that only one process can make."""
        for turn in range(self._failpoint.times):
            try:
                (self._folder / f"{self._failpoint.name}.{turn}.fired").touch(exist_ok=False)
            except FileExistsError:
                continue
            return True
        return False
