"""A live API with a catalogue, clients of two workspaces that know nothing of each other, and who looks behind it."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import msgspec
import pytest
from redis.asyncio import Redis

from api.relay.hub import Hub
from common.config import Settings
from common.eventlog.log import EventLog
from common.ids import new_id
from common.queue import Bell
from common.redis import open_redis
from common.store.database import Pool
from tests.support.api_client import LiveApi, live_api, offer


@pytest.fixture
async def api(settings: Settings, pool: Pool) -> AsyncIterator[LiveApi]:
    """A server whose default provider needs no key."""
    await offer(pool)
    async with live_api(msgspec.structs.replace(settings, default_provider="echo", default_model="echo")) as api:
        yield api


@pytest.fixture
async def other_api(settings: Settings) -> AsyncIterator[LiveApi]:
    """A second API on the same stores."""
    async with live_api(settings) as api:
        yield api


@pytest.fixture
def workspace_id() -> UUID:
    """The workspace of `client`."""
    return new_id()


@pytest.fixture
async def client(api: LiveApi, workspace_id: UUID) -> httpx.AsyncClient:
    """Alice, a member of one workspace."""
    return await api.member(workspace_id)


@pytest.fixture
async def stranger(api: LiveApi) -> httpx.AsyncClient:
    """Bob, the owner of another workspace."""
    return await api.member(new_id(), "owner", "bob")


@pytest.fixture
async def log(settings: Settings) -> AsyncIterator[EventLog]:
    """The logs of all runs, for a test that plays the worker."""
    redis = open_redis(settings.redis_url)
    yield EventLog(redis, settings.stream_ttl_s)
    await redis.aclose()


@pytest.fixture
async def hub(settings: Settings, pool: Pool, log: EventLog) -> AsyncIterator[Hub]:
    """A relay without the HTTP around it."""
    redis = open_redis(settings.redis_url)
    async with Hub(redis, pool, log) as hub:
        yield hub
    await redis.aclose()


@pytest.fixture
async def owner(database_url: str) -> AsyncIterator["asyncpg.Connection[Any]"]:
    """The database's owner, who sees everything."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


@pytest.fixture
def bell(redis: Redis) -> Bell:
    """Of the empty queue."""
    return Bell(redis)
