"""A Postgres server of our own on a private socket."""

import asyncio
import os
import shutil
import signal
import subprocess
from pathlib import Path

from common.devserver.child import Child, spawn
from common.devserver.errors import DevServerError
from common.devserver.readiness import answers, free_port, last_lines
from common.devserver.unprivileged import own, postgres_uid, reachable_data, reachable_programs

_START_S = 30
_STOP_S = 30
_RETRY_S = 5
_DEFAULT_PORT = 5432
"""Names the socket's file when nothing listens on TCP."""
_STARTUP = b"\x00\x03\x00\x00user\x00postgres\x00database\x00postgres\x00\x00"
_STARTUP_MESSAGE = (len(_STARTUP) + 4).to_bytes(4, "big") + _STARTUP


class Postgres:
    """Its data lives in `folder`; whoever may open `sockets` is its superuser.

    `durable=False` trades safety for speed: for tests that never crash it. `tcp=True` also listens on a
    loopback port, without a password: for tests that put something between server and client.
    """

    def __init__(
        self,
        programs: Path,
        folder: Path,
        sockets: Path,
        log: Path,
        *,
        durable: bool = True,
        tcp: bool = False,
        pass_fds: tuple[int, ...] = (),
    ) -> None:
        self._uid = postgres_uid()
        self._programs = programs
        self._folder = folder
        self._sockets = sockets
        self._log = log
        self._durable = durable
        self._pass_fds = pass_fds
        self._tcp = tcp
        self._port = free_port() if tcp else _DEFAULT_PORT
        self.child: Child | None = None

    @property
    def url(self) -> str:
        return url_at(self._sockets, self._port)

    @property
    def tcp_url(self) -> str | None:
        return f"postgresql://postgres@127.0.0.1:{self._port}/postgres" if self._tcp else None

    async def start(self) -> None:
        """Returns once it takes connections. Raises DevServerError with the end of its log."""
        self._programs = reachable_programs(self._programs, self._uid)
        own(self._sockets, self._uid)
        data = reachable_data(self._folder, self._uid)
        if not (data / "PG_VERSION").exists():
            await self._initialise(data)
        loop = asyncio.get_running_loop()
        give_up = loop.time() + _RETRY_S
        while not await self._start_once(data):
            # After a `kill -9` the old server's processes hold its memory for a moment.
            if loop.time() > give_up:
                raise DevServerError(f"Postgres does not start; the end of {self._log}:\n{last_lines(self._log)}")
            await asyncio.sleep(0.1)

    async def stop(self) -> None:
        """An orderly end: clients are cut, what was committed is on disk."""
        if self.child is not None:
            await self.child.stop(signal.SIGINT, _STOP_S)

    async def _initialise(self, data: Path) -> None:
        """Fills `data` as a whole or not at all: an interrupted draft is thrown away by the next start."""
        draft = data.with_name(f"{data.name}.draft")
        if draft.exists():
            shutil.rmtree(draft)
        own(draft, self._uid)
        command: list[str | Path] = [
            self._programs / "initdb",
            f"--pgdata={draft}",
            "--username=postgres",
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            "--no-instructions",
            *self._collation(),
            *([] if self._durable else ["--no-sync"]),
        ]
        with self._log.open("ab") as log:
            child = spawn(
                command,
                on_parent_death=signal.SIGKILL,
                env=_environment(),
                cwd=Path("/"),
                stdout=log,
                user=self._uid,
                pass_fds=self._pass_fds,
            )
        try:
            status = await child.wait(_START_S)
        finally:
            child.send(signal.SIGKILL)
        if status != 0:
            raise DevServerError(f"initdb failed; the end of {self._log}:\n{last_lines(self._log)}")
        draft.rename(data)

    def _collation(self) -> list[str]:
        """Unicode-aware upper and lower case whatever the system has installed; Postgres 17 brought it."""
        words = subprocess.run(  # noqa: S603
            [self._programs / "postgres", "--version"], capture_output=True, text=True, check=True
        )
        major = int(words.stdout.split()[2].split(".")[0])
        return ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"] if major >= 17 else []

    async def _start_once(self, data: Path) -> bool:
        with self._log.open("ab") as log:
            self.child = spawn(
                [self._programs / "postgres", "-D", data, *self._options()],
                on_parent_death=signal.SIGINT,
                env=_environment(),
                cwd=Path("/"),
                stdout=log,
                user=self._uid,
                pass_fds=self._pass_fds,
            )
        return await answers(self.child, self._sockets / f".s.PGSQL.{self._port}", _STARTUP_MESSAGE, b"R", _START_S)

    def _options(self) -> list[str]:
        settings = {
            "unix_socket_directories": str(self._sockets),
            "unix_socket_permissions": "0700",
            "listen_addresses": "127.0.0.1" if self._tcp else "",
            "port": str(self._port),
            "max_connections": "200",
        }
        if not self._durable:
            settings |= {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}
        return [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]


def url_at(sockets: Path, port: int = _DEFAULT_PORT) -> str:
    """The URL of the server whose socket lies in that folder."""
    return f"postgresql://postgres@/postgres?host={sockets}&port={port}"


def _environment() -> dict[str, str]:
    """Ours without what would lead Postgres elsewhere, and with a locale that every system has."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")} | {"LC_ALL": "C"}
