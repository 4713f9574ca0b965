"""What is measured: two APIs with their stores, and the relay, as real processes."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import NamedTuple
from uuid import UUID

import psutil

from bench.documents.spec import Site
from bench.servers import Server, settings_on, store_processes, target_of, under_uvicorn
from common.devserver.mint_token import DEVELOPMENT_WORKSPACE
from common.documents.editing import create_document, read_text
from common.documents.kinds import MARKDOWN
from common.documents.update_scan import scan_update
from common.ids import new_id
from common.store.database import Pool, close_pool, open_pool, workspace_transaction
from common.store.document_log import Actor, Update, append_updates
from tests.support.processes import api_process, environment
from tests.support.servers import running_servers

_ROWS_AT_ONCE = 2_000
_AUTHOR = Actor("user", "bench")
_RELAY_OPTIONS = ("--ws=websockets-sansio", "--ws-per-message-deflate=false")
"""The same implementation of websockets as the API's, and no compression there either."""


class Shelf:
    """The documents in Postgres, made and looked at past the APIs."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.workspace_id = DEVELOPMENT_WORKSPACE

    async def make(self, content: str = "") -> UUID:
        """A new document."""
        document_id = new_id()
        async with workspace_transaction(self.pool, self.workspace_id) as connection:
            await create_document(connection, self.workspace_id, document_id, "Fish", content, _AUTHOR)
        return document_id

    async def append(self, document_id: UUID, updates: list[bytes]) -> None:
        """Adds a row for each update, and makes no snapshot of them."""
        for begin in range(0, len(updates), _ROWS_AT_ONCE):
            scans = [(update, scan_update(update, MARKDOWN)) for update in updates[begin : begin + _ROWS_AT_ONCE]]
            rows = [Update(update, scan.inserted, scan.removed, _AUTHOR) for update, scan in scans]
            await append_updates(self.pool, self.workspace_id, document_id, rows)

    async def text(self, document_id: UUID) -> str:
        """What is committed."""
        async with workspace_transaction(self.pool, self.workspace_id) as connection:
            found = await read_text(connection, document_id)
        assert found is not None
        return found[1]

    async def stored_bytes(self, document_id: UUID) -> int:
        """Of the snapshot and the updates after it."""
        async with workspace_transaction(self.pool, self.workspace_id) as connection:
            size = await connection.fetchval(
                """
                select coalesce((select sum(octet_length(data)) from document_updates where document_id = $1), 0)
                     + coalesce((select octet_length(data) from document_snapshots where document_id = $1), 0)
                """,
                document_id,
            )
        return int(size)


class Pair(NamedTuple):
    """Two APIs over the same stores. Processes: `api`, `other api`, `valkey`, `postgres`."""

    server: Server
    site: Site
    shelf: Shelf
    environment: Mapping[str, str]


@asynccontextmanager
async def two_apis() -> AsyncIterator[Pair]:
    """As `make run` would start them, with stores that fsync what they commit; no worker, since nothing runs."""
    async with running_servers(durable=True) as stores:
        settings = await settings_on(stores)
        env = environment(settings)
        pool = await open_pool(settings)
        try:
            async with api_process(env) as one, api_process(env) as other:
                targets = [target_of(settings, api.url) for api in (one, other)]

                def check() -> None:
                    one.check_running()
                    other.check_running()

                processes = {"api": psutil.Process(one.pid), "other api": psutil.Process(other.pid)}
                server = Server(targets[0], {**processes, **store_processes()}, check)
                yield Pair(server, _site([target.port for target in targets], server), Shelf(pool), env)
        finally:
            await close_pool(pool)


@asynccontextmanager
async def relay() -> AsyncIterator[tuple[Server, Site]]:
    """The baseline. Both halves of the clients are at its one process."""
    async with under_uvicorn("bench.documents.baseline:app", {}, *_RELAY_OPTIONS) as server:
        yield server, Site(name="baseline", ports=[server.target.port] * 2)


@asynccontextmanager
async def fresh_api(pair: Pair) -> AsyncIterator[tuple[psutil.Process, Site]]:
    """One more API over the same stores, which has served nobody yet."""
    async with api_process(pair.environment) as api:
        port = int(api.url.rpartition(":")[2])
        yield psutil.Process(api.pid), Site(name="throughline", ports=[port], headers=pair.site.headers)


@asynccontextmanager
async def fresh_relay() -> AsyncIterator[tuple[psutil.Process, Site]]:
    """One more relay."""
    async with relay() as (server, site):
        yield server.processes["baseline"], site


def path_of(document_id: UUID) -> str:
    """Where clients connect."""
    return f"/v1/documents/{document_id}/sync"


def _site(ports: list[int], server: Server) -> Site:
    target = server.target
    headers = {"Authorization": f"Bearer {target.token}", "X-Workspace-Id": target.workspace_id}
    return Site(name="throughline", ports=ports, headers=headers)
