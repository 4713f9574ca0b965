"""A real Postgres and a real Valkey, kept in one data folder: no Docker, root or not."""

import asyncio
import fcntl
import hashlib
import os
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from common.devserver.binaries import find_postgres, find_valkey
from common.devserver.errors import DevServerError
from common.devserver.postgres import Postgres
from common.devserver.unprivileged import postgres_uid
from common.devserver.valkey import Valkey

_OLD_SERVERS_S = 40
_CHECK_S = 0.5


class EmbeddedServers:
    """Postgres in `data/pg`, Valkey in `data/redis`. They end with this process, however it ends.

    Start and stop it once each. One process at a time may have a data folder: a second one gets
    DevServerError.
    """

    def __init__(self, data: Path, *, durable: bool = True, tcp: bool = False) -> None:
        self._data = data.resolve()
        self._data.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self._data / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        # The servers inherit this one: it is free once the last of them has ended.
        self._servers_lock = os.open(self._data / "servers.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._locked = False
        self._sockets = sockets_folder(self._data)
        fds = (self._servers_lock,)
        self.postgres = Postgres(
            find_postgres(),
            self._data / "pg",
            self._sockets,
            self._data / "postgres.log",
            durable=durable,
            tcp=tcp,
            pass_fds=fds,
        )
        self.valkey = Valkey(
            find_valkey(),
            self._data / "redis",
            self._sockets,
            self._data / "valkey.log",
            durable=durable,
            tcp=tcp,
            pass_fds=fds,
        )

    @property
    def database_url(self) -> str:
        return self.postgres.url

    @property
    def redis_url(self) -> str:
        return self.valkey.url

    async def start(self) -> None:
        """Returns once both take requests. Raises DevServerError."""
        await self._lock_folder()
        _check_private(self._sockets)
        await self.postgres.start()
        await self.valkey.start()

    async def stop(self) -> None:
        """An orderly end of both; the folder is free afterwards."""
        await asyncio.gather(self.postgres.stop(), self.valkey.stop())
        if self._locked:
            with suppress(OSError):
                self._sockets.rmdir()
        os.close(self._servers_lock)
        os.close(self._lock)

    async def keep_running(self, report: Callable[[str], None]) -> None:
        """Starts a server again that ends by itself. Raises DevServerError when that fails."""
        while True:
            for server in (self.postgres, self.valkey):
                status = server.child.returncode if server.child is not None else None
                if status is not None:
                    report(f"{type(server).__name__} ended with status {status}; starting it again")
                    await server.start()
            await asyncio.sleep(_CHECK_S)

    async def _lock_folder(self) -> None:
        if not _try_lock(self._lock):
            raise _used(self._data)
        deadline = asyncio.get_running_loop().time() + _OLD_SERVERS_S
        while not _try_lock(self._servers_lock):
            # Servers whose parent was killed are writing their last page.
            if asyncio.get_running_loop().time() > deadline:
                raise DevServerError(f"servers of an earlier `throughline dev` still use {self._data}")
            await asyncio.sleep(0.05)
        self._locked = True


def refuse_used_folder(data: Path) -> None:
    """Raises DevServerError while a process has this data folder."""
    try:
        lock = os.open(data / "lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not _try_lock(lock):
            raise _used(data.resolve())
    finally:
        os.close(lock)


def _used(data: Path) -> DevServerError:
    return DevServerError(f"another `throughline dev` uses {data}; stop it, or choose another folder with --data")


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def sockets_folder(data: Path) -> Path:
    """Short, since a socket's path has at most 103 bytes, and the same for each start with this data."""
    digest = hashlib.sha256(os.fsencode(data)).hexdigest()[:10]
    return Path(tempfile.gettempdir()) / f"throughline-{os.geteuid()}-{digest}"


def _check_private(folder: Path) -> None:
    """Whoever opens a socket in here is the database's superuser: it must be ours, and closed to others."""
    folder.mkdir(mode=0o700, exist_ok=True)
    info = folder.lstat()
    if not stat.S_ISDIR(info.st_mode) or info.st_uid not in (os.geteuid(), postgres_uid()):
        raise DevServerError(f"{folder} belongs to somebody else; remove it, or set TMPDIR to a folder of your own")
    if stat.S_IMODE(info.st_mode) != 0o700:
        folder.chmod(0o700)
