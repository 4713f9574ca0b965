"""Real servers for tests: one Postgres and one Valkey, and a fresh migrated database for each test."""

import itertools
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg

from common.devserver.embedded import EmbeddedServers
from common.store.migrate import migrate
from tests.support.stale import remove_stale_folders
from tests.support.used_databases import Pristine

_TEMPLATE = "throughline_template"
_PREFIX = "throughline-test-"


class Servers:
    """A running Postgres and Valkey. `database_url` names its owner, who is a superuser."""

    def __init__(self, embedded: EmbeddedServers) -> None:
        self.embedded = embedded
        self._numbers = itertools.count(1)
        self._pristine: Pristine | None = None
        self._used: list[str] = []

    @property
    def database_url(self) -> str:
        return self.embedded.database_url

    @property
    def redis_url(self) -> str:
        return self.embedded.redis_url

    async def make_template(self) -> None:
        """Migrates the database that every test's own is copied from."""
        await self.execute(f"create database {_TEMPLATE}")
        await migrate(self.url_of(_TEMPLATE))

    async def take_database(self) -> str:
        """The URL of a migrated database that is as good as new."""
        return self._used.pop() if self._used else await self.create_database()

    async def give_back(self, url: str) -> None:
        """Keeps a database of `take_database` for the next one, whoever is still connected; drops it where more than
        rows was changed.
        """
        if self._pristine is None:
            # Of a copy, since nobody can copy the template while somebody is connected to it.
            fresh = await self.create_database()
            self._pristine = await Pristine.of(fresh)
            await self.drop_database(fresh)
        if await self._pristine.restore(url):
            self._used.append(url)
        else:
            await self.drop_database(url)

    async def create_database(self, template: str | None = _TEMPLATE) -> str:
        """A new database's URL; empty where `template` is None."""
        name = f"test_{next(self._numbers)}"
        await self.execute(f"create database {name} template {template or 'template0'}")
        return self.url_of(name)

    async def drop_database(self, url: str) -> None:
        """Drops it, whoever is still connected."""
        await self.execute(f"drop database if exists {urlsplit(url).path[1:]} with (force)")

    async def execute(self, sql: str) -> None:
        """Runs `sql` as superuser, outside of a transaction."""
        connection = await asyncpg.connect(self.database_url)
        try:
            await connection.execute(sql)
        finally:
            await connection.close()

    def url_of(self, database: str, user: str = "postgres") -> str:
        """The URL of another database or user on this Postgres."""
        parts = urlsplit(self.database_url)
        return parts._replace(netloc=f"{user}@", path=f"/{database}").geturl()


@asynccontextmanager
async def running_servers(*, durable: bool = False, tcp: bool = False, migrated: bool = True) -> AsyncIterator[Servers]:
    """Servers of one's own. `durable`: what is committed survives their crash; `migrated`: with a template."""
    remove_stale_folders(_PREFIX)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    # Postgres may run as another user, who has to pass; its own folder inside stays closed.
    folder.chmod(0o755)
    embedded = EmbeddedServers(folder, durable=durable, tcp=tcp)
    try:
        await embedded.start()
        servers = Servers(embedded)
        if migrated:
            await servers.make_template()
        yield servers
    finally:
        await embedded.stop()
        # Another test process may take it for a stale one at this moment, and remove it as well.
        shutil.rmtree(folder, ignore_errors=True)
