"""Fixtures that every test may use: real servers, and a fresh database and an empty Valkey for each test."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import hypothesis
import pytest
from redis.asyncio import Redis

from common.config import Settings, load_settings
from common.redis import open_redis
from common.store.database import Pool, open_pool
from tests.support.servers import Servers, running_servers

# No example fails for the time it takes: that is the machine's, which runs other tests beside it.
hypothesis.settings.register_profile("throughline", deadline=None)
hypothesis.settings.load_profile("throughline")

JWT_SECRET = "a secret of the tests, long enough for HS256"


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """One embedded Postgres and Valkey per test process; `database_url` is its owner's."""
    with asyncio.Runner() as runner:
        context = running_servers()
        yield runner.run(context.__aenter__())
        runner.run(context.__aexit__(None, None, None))


@pytest.fixture
async def database_url(servers: Servers) -> AsyncIterator[str]:
    """A migrated database as good as new, as its owner."""
    url = await servers.take_database()
    yield url
    await servers.give_back(url)


@pytest.fixture
async def redis_url(servers: Servers) -> str:
    """An empty Valkey."""
    client = open_redis(servers.redis_url)
    await client.flushall()
    await client.aclose()
    return servers.redis_url


@pytest.fixture
def settings(database_url: str, redis_url: str, tmp_path: Path) -> Settings:
    """Settings of a development system on the test's own database and Valkey."""
    return load_settings(
        {
            "THROUGHLINE_ENV": "development",
            "THROUGHLINE_DATA": str(tmp_path),
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "JWT_SECRET": JWT_SECRET,
        }
    )


@pytest.fixture
async def pool(settings: Settings) -> AsyncIterator[Pool]:
    """Connections as the service's role."""
    pool = await open_pool(settings)
    yield pool
    await pool.close()


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """A client of the empty Valkey."""
    client = open_redis(redis_url)
    yield client
    await client.aclose()
