"""Debian's pgbouncer in transaction mode, configured as docs/operations/postgres.md says."""

import os
import re
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg

from common.devserver.child import spawn
from common.devserver.readiness import free_port, last_lines
from common.devserver.unprivileged import own, postgres_uid
from tests.support.eventually import eventually
from tests.support.servers import Servers

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
_PAGE = Path(__file__).resolve().parents[2] / "docs/operations/postgres.md"
_SESSIONS = 3
"""Fewer than a process has connections: they share them in the middle of everything."""


def documented(language: str, holding: str) -> str:
    """The page's one block in `language` that holds these words."""
    blocks = re.findall(rf"```{language}\n(.*?)```", _PAGE.read_text("utf-8"), re.DOTALL)
    [block] = [block for block in blocks if holding in block]
    return str(block)


@asynccontextmanager
async def login_through_pgbouncer(
    servers: Servers, database_url: str, login: str = "throughline_service"
) -> AsyncIterator[str]:
    """The URL of the database that `database_url` names, through a pooler; the role is made as the page makes it."""
    if login != "throughline_service":
        async with _pgbouncer(database_url, login) as url:
            yield url
        return
    await servers.execute(f"create role {login} login in role throughline_app")
    try:
        await servers.execute(documented("sql", "statement_timeout"))
        async with _pgbouncer(database_url, login) as url:
            yield url
    finally:
        await servers.execute(f"drop role {login}")


@asynccontextmanager
async def _pgbouncer(database_url: str, login: str) -> AsyncIterator[str]:
    assert PROGRAM is not None
    parts = urlsplit(database_url)
    at = {name: values[0] for name, values in parse_qs(parts.query).items()}
    place = f"host={at['host']} port={at['port']} dbname={parts.path[1:]}"
    port, uid = free_port(), postgres_uid()
    with tempfile.TemporaryDirectory(prefix="throughline-pgbouncer-") as name:
        folder = Path(name)
        config = re.sub(r"(?m)^throughline = .*$", f"throughline = {place}", documented("ini", "[pgbouncer]"))
        (folder / "users").write_text(f'"{login}" ""\n')
        (folder / "pgbouncer.ini").write_text(
            f"{config}listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = trust\n"
            f"auth_file = {folder / 'users'}\ndefault_pool_size = {_SESSIONS}\n"
        )
        own(folder, uid)
        log = folder.with_suffix(".log")
        with log.open("ab") as output:
            child = spawn([PROGRAM, folder / "pgbouncer.ini"], on_parent_death=signal.SIGKILL, stdout=output, user=uid)
        try:
            url = f"postgresql://{login}@127.0.0.1:{port}/throughline"

            async def answers() -> bool:
                assert child.returncode is None, last_lines(log)
                try:
                    await (await asyncpg.connect(url, statement_cache_size=0)).close()
                except (OSError, asyncpg.PostgresError):
                    return False
                return True

            await eventually(answers, 20)
            yield url
        finally:
            await child.stop(signal.SIGKILL, 5)
            log.unlink()
