"""Which servers a REDIS_URL names."""

from typing import Any

import pytest
from redis.asyncio.connection import SSLConnection
from redis.asyncio.sentinel import SentinelManagedConnection, SentinelManagedSSLConnection

from common.config import ConfigError, redact_url
from common.redis import Tls, open_redis
from common.sentinel_url import parse_sentinel_url


@pytest.mark.parametrize(
    ("url", "sentinels", "master", "login"),
    [
        ("redis+sentinel://a/m", ["redis://a:26379"], "m", {"db": 0}),
        ("redis+sentinel://a:1,b:2/m/3", ["redis://a:1", "redis://b:2"], "m", {"db": 3}),
        ("redis+sentinel://:p%40w@[::1]:1/m", ["redis://[::1]:1"], "m", {"password": "p@w", "db": 0}),
        (
            "rediss+sentinel://u:p@a/m?sentinel_username=s&sentinel_password=t%2Fu",
            ["rediss://s:t%2Fu@a:26379"],
            "m",
            {"username": "u", "password": "p", "db": 0},
        ),
    ],
)
def test_sentinel_url_names_sentinels_and_their_master(
    url: str, sentinels: list[str], master: str, login: dict[str, Any]
) -> None:
    """Each sentinel with its port, the master by its name; the login is the master's, an option the sentinels'."""
    parsed = parse_sentinel_url(url)
    assert (parsed.sentinels, parsed.master, parsed.login) == (sentinels, master, login)
    assert parsed.tls == url.startswith("rediss")


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://a:1",
        "redis+sentinel:///m",
        "redis+sentinel://a:1,,b:2/m",
        "redis+sentinel://a:b/m",
        "redis+sentinel://a/m?db=1",
        "http://localhost",
        "redis://localhost:port",
    ],
)
def test_url_that_names_no_server_is_a_wrong_setting(url: str) -> None:
    """Said when the process starts, not as a Redis that is down for ever."""
    with pytest.raises(ConfigError, match="REDIS_URL"):
        open_redis(url)


async def test_url_decides_how_connections_are_made() -> None:
    """TLS, and who is asked where the server is."""
    for url, kind in (
        ("rediss://a", SSLConnection),
        ("redis+sentinel://a/m", SentinelManagedConnection),
        ("rediss+sentinel://a/m", SentinelManagedSSLConnection),
    ):
        client = open_redis(url, Tls(verify=False))
        assert issubclass(client.connection_pool.connection_class, kind)
        await client.aclose()


def test_passwords_of_a_sentinel_url_are_not_shown() -> None:
    """In errors and logs."""
    url = "redis+sentinel://:secret@a:1,b:2/m?sentinel_username=s&sentinel_password=other"
    assert redact_url(url) == "redis+sentinel://:***@a:1,b:2/m?sentinel_username=s&sentinel_password=***"
