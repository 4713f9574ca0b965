"""A Valkey server of our own on a private socket."""

import signal
from pathlib import Path

from common.devserver.child import Child, spawn
from common.devserver.errors import DevServerError
from common.devserver.readiness import answers, free_port, last_lines

_START_S = 30
_STOP_S = 10


class Valkey:
    """Its data (an append-only file) lives in `folder`. `durable=False`: it forgets everything when it ends.

    `tcp=True` also listens on a loopback port, without a password: for tests that put something in between.
    """

    def __init__(
        self,
        program: Path,
        folder: Path,
        sockets: Path,
        log: Path,
        *,
        durable: bool = True,
        tcp: bool = False,
        pass_fds: tuple[int, ...] = (),
    ) -> None:
        self._program = program
        self._folder = folder
        self._socket = sockets / "valkey.sock"
        self._log = log
        self._durable = durable
        self._pass_fds = pass_fds
        self._port = free_port() if tcp else None
        self.child: Child | None = None

    @property
    def url(self) -> str:
        return f"unix://{self._socket}"

    @property
    def tcp_url(self) -> str | None:
        return f"redis://127.0.0.1:{self._port}/0" if self._port else None

    async def start(self) -> None:
        """Returns once it answers and has read its data. Raises DevServerError with the end of its log."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            self.child = spawn(
                [self._program, *self._options()],
                on_parent_death=signal.SIGTERM,
                stdout=log,
                pass_fds=self._pass_fds,
            )
        if not await answers(self.child, self._socket, b"*1\r\n$4\r\nPING\r\n", b"+PONG", _START_S):
            raise DevServerError(f"Valkey does not start; the end of {self._log}:\n{last_lines(self._log)}")

    async def stop(self) -> None:
        """An orderly end: the append-only file is on disk."""
        if self.child is not None:
            await self.child.stop(signal.SIGTERM, _STOP_S)

    def _options(self) -> list[str]:
        settings = {
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "bind": "127.0.0.1",
            "port": str(self._port or 0),
            "dir": str(self._folder),
            "save": "",
            "appendonly": "yes" if self._durable else "no",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
        }
        return [word for name, value in settings.items() for word in (f"--{name}", value)]
