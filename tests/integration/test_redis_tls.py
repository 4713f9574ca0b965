"""`rediss://`: whose answers are believed."""

from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from common.config import ConfigError, load_settings
from common.eventlog.log import AppendResult, Batch, EventLog
from common.ids import new_id
from common.redis import REDIS_DOWN, Tls, open_redis, tls_of
from tests.support.tls import Certificates, make_certificates, tls_before


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    """Of an authority that no system knows."""
    return make_certificates(tmp_path)


@pytest.fixture
async def url(redis_url: str, certificates: Certificates) -> AsyncIterator[str]:
    """The test's Valkey, behind TLS."""
    async with tls_before(Path(urlsplit(redis_url).path), certificates) as port:
        yield f"rediss://127.0.0.1:{port}/0"


async def _answers(url: str, tls: Tls) -> bool:
    client = open_redis(url, tls)
    try:
        return bool(await client.ping())
    finally:
        await client.aclose()


async def test_server_of_a_named_authority_is_trusted(url: str, certificates: Certificates) -> None:
    """With REDIS_TLS_CA the log is written and read over TLS."""
    client = open_redis(url, tls_of(load_settings({"REDIS_TLS_CA": str(certificates.authority)})))
    log, run_id = EventLog(client, 60), new_id()
    assert await log.append(run_id, Batch(1, 1, (b"a", b"b"))) is AppendResult.OK
    assert [event.data for event in await log.read_after(run_id, None, 10)] == [b"a", b"b"]
    await client.aclose()


async def test_server_of_an_unknown_authority_is_refused(url: str) -> None:
    """By default only the system's authorities are trusted: the server counts as down, and nothing is sent to it."""
    with pytest.raises(REDIS_DOWN, match="certificate verify failed"):
        await _answers(url, Tls())


async def test_server_with_another_ones_certificate_is_refused(redis_url: str, tmp_path: Path) -> None:
    """A certificate of a trusted authority is good for the host that it names alone."""
    certificates = make_certificates(tmp_path, "elsewhere.example")
    async with tls_before(Path(urlsplit(redis_url).path), certificates) as port:
        with pytest.raises(REDIS_DOWN, match="certificate"):
            await _answers(f"rediss://127.0.0.1:{port}/0", Tls(ca_file=str(certificates.authority)))


@pytest.mark.parametrize("option", ["", "?ssl_cert_reqs=none"])
async def test_unchecked_server_is_taken_as_it_is(url: str, option: str) -> None:
    """For platforms that sign their own: REDIS_TLS_VERIFY=false, or the same said by the URL."""
    tls = tls_of(load_settings({} if option else {"REDIS_TLS_VERIFY": "false"}))
    assert await _answers(url + option, tls)


def test_authority_that_is_not_there_is_a_wrong_setting() -> None:
    """It would look like a Redis that is down for ever."""
    with pytest.raises(ConfigError, match=r"REDIS_TLS_CA: there is no file /nowhere/ca\.pem"):
        open_redis("rediss://127.0.0.1:1", Tls(ca_file="/nowhere/ca.pem"))
