"""What a platform hands to a process: its port, and URLs in the forms that platforms give them."""

import asyncio
from pathlib import Path

import pytest
from redis.asyncio.connection import SSLConnection

from common.config import load_settings, redact_url
from common.redis import open_redis, tls_of
from common.store.database import DATABASE_DOWN, open_pool

_PAGE = (Path(__file__).resolve().parents[2] / "docs/operations/platforms.md").read_text("utf-8")
_ASKS_FOR_TLS = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"


def test_port_of_the_platform_is_taken() -> None:
    """With the page's settings the API listens where the platform's router looks for it."""
    assert "`HOST=0.0.0.0`" in _PAGE
    settings = load_settings({"PORT": "43211", "HOST": "0.0.0.0"})
    assert (settings.host, settings.port) == ("0.0.0.0", 43211)


async def test_postgres_of_a_platform_is_asked_for_tls_first() -> None:
    """`postgres://…?sslmode=require`: where TLS is refused there is no connection, and nothing is said without it."""
    heard = b""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal heard
        heard += await reader.readexactly(len(_ASKS_FOR_TLS))
        writer.write(b"N")
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        settings = load_settings({"DATABASE_URL": f"postgres://u3:p%2Fw@127.0.0.1:{port}/d8?sslmode=require"})
        with pytest.raises(DATABASE_DOWN, match="rejected SSL upgrade"):
            await open_pool(settings)
    assert heard.replace(_ASKS_FOR_TLS, b"") == b"" != heard
    assert settings.migration_database_url == settings.database_url
    assert "p%2Fw" not in redact_url(settings.database_url)


async def test_postgres_url_of_a_platform_is_read(database_url: str) -> None:
    """The older scheme's name, and TLS where the server has it."""
    settings = load_settings({"DATABASE_URL": f"{database_url.replace('postgresql://', 'postgres://')}&sslmode=prefer"})
    pool = await open_pool(settings)
    assert await pool.fetchval("select current_user") == "throughline_app"
    await pool.close()


async def test_redis_url_of_a_platform_is_read() -> None:
    """With a certificate that the platform has signed itself, unchecked by a setting: its URL cannot be changed."""
    assert "`REDIS_TLS_VERIFY=false`" in _PAGE
    url = "rediss://:p4@ec2-2.compute.example:6380"
    settings = load_settings({"REDIS_URL": url, "REDIS_TLS_VERIFY": "false"})
    assert settings.queue_redis_url == settings.redis_url
    client = open_redis(settings.redis_url, tls_of(settings))
    pool = client.connection_pool
    assert issubclass(pool.connection_class, SSLConnection)
    assert pool.connection_kwargs["ssl_cert_reqs"] == "none"
    assert (pool.connection_kwargs["host"], pool.connection_kwargs["port"]) == ("ec2-2.compute.example", 6380)
    await client.aclose()
