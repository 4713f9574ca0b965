"""Child processes that never outlive this one, not even when it is killed with `kill -9`."""

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None

# Reads until its parent is gone (end of file on the pipe), then signals the process that it was told of.
_WATCHDOG = """
import os, sys
sys.stdin.buffer.read()
try:
    os.kill(int(sys.argv[1]), int(sys.argv[2]))
except OSError:
    pass
"""


class Process(ABC):
    """A process that may be signalled and waited for, whoever its parent is."""

    pid: int
    """Its number; perhaps somebody else's once `returncode` is known."""

    @property
    @abstractmethod
    def returncode(self) -> int | None:
        """Its exit status once it has ended (negative: the signal that ended it), None while it runs."""

    def send(self, number: signal.Signals) -> None:
        """Signals the process; one that has ended is left alone."""
        if self.returncode is None:
            os.kill(self.pid, number)

    async def wait(self, timeout_s: float) -> int | None:
        """The exit status, or None when it still runs after `timeout_s`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        # A poll, since a child may be waited for by another event loop than the one that started it.
        pause_s = 0.005
        while (status := self.returncode) is None and loop.time() < deadline:
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 1.5, 0.1)
        return status

    async def stop(self, number: signal.Signals, grace_s: float) -> None:
        """Signals it, waits for its end, and kills it after `grace_s`."""
        self.send(number)
        if await self.wait(grace_s) is None:
            self.send(signal.SIGKILL)
            await self.wait(10)


class Child(Process):
    """A running process. It leads a session of its own: a terminal's Ctrl-C reaches it through us alone."""

    def __init__(self, process: "subprocess.Popen[bytes]", watchdog: "subprocess.Popen[bytes] | None") -> None:
        self.pid = process.pid
        self._process = process
        self._watchdog = watchdog

    @property
    def stdout(self) -> IO[bytes] | None:
        return self._process.stdout

    @property
    def returncode(self) -> int | None:
        """Its exit status once it has ended (negative: the signal that ended it), None while it runs."""
        status = self._process.poll()
        if status is not None:
            self._dismiss_watchdog()
        return status

    def _dismiss_watchdog(self) -> None:
        # At once: by the time that this process ends, the child's number may belong to somebody else.
        if self._watchdog is not None:
            self._watchdog.kill()
            self._watchdog.communicate()
            self._watchdog = None


def spawn(
    argv: Sequence[str | Path],
    *,
    on_parent_death: signal.Signals,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdout: int | IO[bytes] | None = None,
    user: int | None = None,
    pass_fds: Sequence[int] = (),
    watchdog: bool = _LIBC is None,
) -> Child:
    """Starts `argv`; when this process is gone, the kernel or a watchdog sends it `on_parent_death`.

    Call it from the main thread: the kernel watches the thread that starts a process. `user` drops to that
    uid (and gid) and needs root. Raises OSError when the program cannot be started.
    """
    process = subprocess.Popen(  # noqa: S603
        argv,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=None if stdout is None else subprocess.STDOUT,
        env=env,
        cwd=cwd,
        user=user,
        group=user,
        extra_groups=None if user is None else [],
        pass_fds=pass_fds,
        start_new_session=True,
        # Runs after the change of user, which would clear the request.
        preexec_fn=None if watchdog else _follow_parent(on_parent_death),
    )
    return Child(process, _start_watchdog(process.pid, on_parent_death) if watchdog else None)


def _follow_parent(number: signal.Signals) -> Callable[[], None]:
    parent = os.getpid()

    def ask_kernel() -> None:
        assert _LIBC is not None
        _LIBC.prctl(_PR_SET_PDEATHSIG, int(number))
        if os.getppid() != parent:
            os._exit(1)

    return ask_kernel


def _start_watchdog(pid: int, number: signal.Signals) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(  # noqa: S603
        [sys.executable, "-I", "-S", "-c", _WATCHDOG, str(pid), str(int(number))],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
