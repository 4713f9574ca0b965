"""A process that is kept running, its output prefixed with its name."""

import asyncio
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress

from common.devserver.child import Child, spawn
from common.devserver.errors import DevServerError

FIRST_BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 10.0
_CONFIG_ERROR = 2
"""The exit status of our processes for a setting that cannot work."""
_LONGEST_LINE = 1 << 20
_CHUNK = 1 << 16
_FOREVER_S = float("inf")


class Supervised:
    """One command of the Procfile. `write(name, line)` gets each line that it prints."""

    def __init__(self, name: str, argv: list[str], env: Mapping[str, str], write: Callable[[str, str], None]) -> None:
        self.name = name
        self._argv = argv
        self._env = env
        self._write = write
        self._child: Child | None = None
        self._stopping = asyncio.Event()
        self._last_line = ""

    async def run_once(self) -> int:
        """Runs the command to its end; its exit status, 127 for a program that is not there."""
        try:
            self._child = spawn(
                self._argv, on_parent_death=signal.SIGKILL, env=self._env, stdout=asyncio.subprocess.PIPE
            )
        except OSError as error:
            self._write(self.name, f"cannot start {self._argv[0]}: {error.strerror}")
            return 127
        lines = asyncio.create_task(self._relay_lines(self._child))
        try:
            status = await self._child.wait(_FOREVER_S)
            # What it has written last; a grandchild that keeps the pipe open is not waited for.
            await asyncio.wait([lines], timeout=0.5)
        finally:
            lines.cancel()
            with suppress(asyncio.CancelledError):
                await lines
        assert status is not None
        return status

    async def keep_running(self, is_starting: Callable[[], bool]) -> None:
        """Starts it, and again whenever it ends, until `stop` is called.

        Waits 0.5 s before that, then twice as long each time up to 10 s; anew once it was up for 10 s. Raises
        DevServerError when it ends for a setting that cannot work while the system `is_starting`: a person is there
        to mend it.
        """
        loop = asyncio.get_running_loop()
        backoff_s = FIRST_BACKOFF_S
        while not self._stopping.is_set():
            started = loop.time()
            status = await self.run_once()
            if self._stopping.is_set():
                return
            if status == _CONFIG_ERROR and is_starting():
                raise DevServerError(f"{self.name} cannot start: {self._last_line or f'it ended with status {status}'}")
            if loop.time() - started >= LONGEST_BACKOFF_S:
                backoff_s = FIRST_BACKOFF_S
            self._write(self.name, f"ended with status {status}; starting it again in {backoff_s:g} s")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), backoff_s)
            backoff_s = min(backoff_s * 2, LONGEST_BACKOFF_S)

    async def stop(self, grace_s: float) -> None:
        """SIGTERM, then SIGKILL after `grace_s`; it is not started again."""
        self._stopping.set()
        if self._child is not None:
            await self._child.stop(signal.SIGTERM, grace_s)

    def kill(self) -> None:
        """Ends it at once."""
        if self._child is not None:
            self._child.send(signal.SIGKILL)

    async def _relay_lines(self, child: Child) -> None:
        """Passes on what it prints, a line beyond 1 MiB in pieces."""
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, child.stdout)
        rest = b""
        try:
            while chunk := await reader.read(_CHUNK):
                *lines, rest = (rest + chunk).split(b"\n")
                if len(rest) > _LONGEST_LINE:
                    lines.append(rest)
                    rest = b""
                for line in lines:
                    self._pass_on(line)
            if rest:
                self._pass_on(rest)
        finally:
            transport.close()

    def _pass_on(self, line: bytes) -> None:
        self._last_line = line.decode(errors="replace").rstrip("\r")
        self._write(self.name, self._last_line)
