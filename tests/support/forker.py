"""The real commands without the two seconds that their imports cost: one process has imported all of it, and forks.

A forked process does what `python -m api` or `python -m worker` does from its first line on; what only a fresh
interpreter shows is for tests/e2e. The forker has one thread and no event loop, so that there is nothing to inherit.
Linux only: elsewhere libraries may have threads after all, and nobody would end the forked when the forker dies.
"""

import array
import asyncio
import atexit
import ctypes
import gc
import importlib
import os
import runpy
import select
import signal
import socket
import struct
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO, Literal

import msgspec

from common.devserver.child import Child, Process, spawn
from tests.support.failpoints import VARIABLE, Armed, arm_all

AVAILABLE = sys.platform == "linux"

_ROOT = Path(__file__).resolve().parents[2]
_PR_SET_PDEATHSIG = 1
_LENGTH = struct.Struct("!I")
_MOST_FDS = 8


class Birth(msgspec.Struct, frozen=True, tag="birth"):
    """Fork `module`; with it come the log's descriptor and those that the module is to have."""

    module: Literal["api", "worker"]
    env: dict[str, str]


class Look(msgspec.Struct, frozen=True, tag="look"):
    """How did `pid` end?"""

    pid: int


class ForkedChild(Process):
    """A forked process, used like a `Child`."""

    def __init__(self, forker: "Forker", pid: int) -> None:
        self.pid = pid
        self._forker = forker
        self._status: int | None = None

    @property
    def returncode(self) -> int | None:
        """Its exit status once it has ended (negative: the signal that ended it), None while it runs."""
        if self._status is None:
            self._status = self._forker.status_of(self.pid)
        return self._status


class Forker:
    """The process that forks, as its user sees it. It ends with this process."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._child: Child = spawn(
                [sys.executable, "-m", "tests.support.forker", str(theirs.fileno())],
                on_parent_death=signal.SIGKILL,
                cwd=_ROOT,
                pass_fds=(theirs.fileno(),),
            )
        self._ready = False
        atexit.register(self._close)

    async def fork(
        self, module: Literal["api", "worker"], env: Mapping[str, str], log: IO[bytes], pass_fds: Sequence[int] = ()
    ) -> ForkedChild:
        """A process that runs `module`; of `pass_fds` there is at most the socket that THROUGHLINE_FD names."""
        assert len(pass_fds) <= 1, "which one would THROUGHLINE_FD be?"
        while not self._ready:
            if select.select([self._socket], [], [], 0)[0]:
                self._receive()  # It has imported everything.
                self._ready = True
            else:
                await asyncio.sleep(0.05)
        return ForkedChild(self, self._ask(Birth(module, dict(env)), [log.fileno(), *pass_fds]))

    def status_of(self, pid: int) -> int | None:
        """The exit status of one that was forked, None while it runs. Asked again after that, it is unknown."""
        answer = self._ask(Look(pid))
        return None if answer == _RUNS else answer

    def _close(self) -> None:
        self._socket.close()
        asyncio.run(self._child.wait(10))

    def _ask(self, request: Birth | Look, fds: Sequence[int] = ()) -> int:
        data = msgspec.json.encode(request)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self._socket.sendmsg([_LENGTH.pack(len(data))], rights)
        self._socket.sendall(data)
        return self._receive()

    def _receive(self) -> int:
        answer = self._socket.recv(_ANSWER.size, socket.MSG_WAITALL)
        assert len(answer) == _ANSWER.size, "the forker has died"
        return int(_ANSWER.unpack(answer)[0])


@cache
def the_forker() -> Forker:
    """This process's own, which it starts when it is first asked for."""
    return Forker()


_ANSWER = struct.Struct("!i")
_RUNS = 1000


def _main(connection: socket.socket) -> None:
    """Serves until the other side has gone; returns in each forked process once that has become what it is to be."""
    _import_all()
    gc.collect()
    gc.freeze()
    connection.sendall(_ANSWER.pack(0))
    parent = os.getpid()
    while True:
        head, fds, _, _ = socket.recv_fds(connection, _LENGTH.size, _MOST_FDS)
        if not head:
            os._exit(0)
        data = connection.recv(_LENGTH.unpack(head)[0], socket.MSG_WAITALL)
        request = msgspec.json.decode(data, type=Birth | Look)
        if isinstance(request, Look):
            pid, status = os.waitpid(request.pid, os.WNOHANG)
            connection.sendall(_ANSWER.pack(os.waitstatus_to_exitcode(status) if pid else _RUNS))
            continue
        pid = os.fork()
        if pid == 0:
            connection.close()
            _become(request, fds, parent)
            return
        for fd in fds:
            os.close(fd)
        connection.sendall(_ANSWER.pack(pid))


def _import_all() -> None:
    """What the two commands import, and the SDKs that the worker imports for the keys that it finds."""
    for module in (
        "api.app",
        "api.server",
        "uvloop",
        "worker.main",
        "worker.providers.anthropic",
        "worker.providers.openai",
        "worker.providers.openai_compatible",
    ):
        importlib.import_module(module)


def _become(birth: Birth, fds: Sequence[int], parent: int) -> None:
    """A process as `spawn` would have started it, ready to run the module."""
    os.setsid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:
        os._exit(1)
    log, *passed = fds
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    os.environ.clear()
    os.environ.update(birth.env)
    for fd in passed:
        os.environ["THROUGHLINE_FD"] = str(fd)
    if VARIABLE in birth.env:
        arm_all(msgspec.json.decode(birth.env[VARIABLE], type=Armed))
    sys.argv = [birth.module]


if __name__ == "__main__":
    _main(socket.socket(fileno=int(sys.argv[1])))
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
