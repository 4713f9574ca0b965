"""Between the system and its Postgres connections break, fall silent, or lose replies."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import msgspec
import pytest

from common.config import Settings
from common.ids import new_id
from common.store.database import Pool
from tests.support.api_client import live_api, make_conversation, offer, refusal_of
from tests.support.at_work import at_work
from tests.support.chaos import Chaos
from tests.support.servers import Servers
from tests.support.system import System, running_system
from tests.support.tcp_proxy import Mode, TcpProxy

_READINESS_S = 5.0
"""Within which `/health/ready` answers, asking each store for 4 s at most."""


@pytest.mark.slow
async def test_dead_connections_are_replaced(chaos: Chaos) -> None:
    """All connections to Postgres die, with and without a word: new ones are made at once; nothing is lost."""
    async with (
        _proxied(chaos) as (system, proxy, url),
        at_work(chaos, system, chaos.pick(100, 1000), DATABASE_URL=url) as work,
    ):
        for mode in (Mode.RESET, Mode.BLACK_HOLE, Mode.HALF_OPEN) * chaos.pick(1, 3):
            await asyncio.sleep(chaos.random.uniform(0.3, chaos.pick(0.8, 4.0)))
            chaos.fault(f"{proxy.open} connections: {mode}")
            proxy.switch(mode, new=False)
            await work.heals()


@pytest.mark.slow
async def test_silence_loses_nothing(chaos: Chaos) -> None:
    """Postgres is silent for 30 s, old connections and new ones: 503 in time, not ready, and no run fails."""
    async with (
        _proxied(chaos) as (system, proxy, url),
        at_work(chaos, system, chaos.pick(50, 1000), DATABASE_URL=url) as work,
    ):
        for mode in (Mode.BLACK_HOLE, Mode.LOSE_REPLIES):
            chaos.fault(f"{proxy.open} connections and all new ones: {mode}")
            proxy.switch(mode)
            until = time.monotonic() + chaos.pick(2, 30)
            while time.monotonic() < until:
                began = time.monotonic()
                assert await work.readiness() == (503, "unavailable")
                assert time.monotonic() - began < _READINESS_S
            proxy.switch(Mode.PASS)
            chaos.fault("new connections work")
            await work.heals()
            assert await work.readiness() == (200, "ok")


async def test_closed_database_loses_nothing(chaos: Chaos) -> None:
    """The database is closed to everybody again and again: 503, not ready; no process ends and no run fails."""
    async with (
        running_system(durable=True, forked=not chaos.full) as system,
        at_work(chaos, system, chaos.pick(50, 400)) as work,
    ):
        database = urlsplit(system.environment()["DATABASE_URL"]).path[1:]
        for _ in range(chaos.pick(2, 10)):
            await system.servers.execute(f"alter database {database} allow_connections false")
            # Some connections stay for a while: those who have one must not be told another story than the others.
            cut = f"select pg_terminate_backend(pid) from pg_stat_activity where datname = '{database}'"
            await system.servers.execute(f"{cut} and random() < 0.7")
            chaos.fault("closed, and most connections cut")
            await asyncio.sleep(chaos.random.uniform(0.1, chaos.pick(1.0, 3.0)))
            await system.servers.execute(cut)
            assert await work.readiness() == (503, "unavailable")
            await system.servers.execute(f"alter database {database} allow_connections true")
            chaos.fault("open")
            await work.heals()


async def test_lost_reply_to_a_commit_is_found_by_its_key(
    chaos: Chaos, servers: Servers, settings: Settings, pool: Pool
) -> None:
    """A message is stored and nobody hears so: 503 in time; the same request again gets that message and its run."""
    await offer(pool)
    async with TcpProxy(servers.database_url) as proxy:
        url = proxy.url_of(settings.database_url)
        proxied = msgspec.structs.replace(settings, database_url=url, default_provider="echo", default_model="echo")
        async with live_api(proxied) as api:
            client = await api.member(new_id())
            conversation = await make_conversation(client)
            path = f"/v1/conversations/{conversation}/messages"
            proxy.after(b"commit", Mode.LOSE_REPLIES)
            began = time.monotonic()
            refused = await client.post(path, json={"content": "once"}, headers={"Idempotency-Key": "it"})
            chaos.figure("seconds to the 503", time.monotonic() - began, 10, "s")
            assert refusal_of(refused) == (503, "unavailable")
            assert refused.headers["retry-after"] == "1"

            answer = await client.post(path, json={"content": "once"}, headers={"Idempotency-Key": "it"})

            assert answer.status_code == 202
            messages = (await client.get(path)).json()["data"]
            assert [message["id"] for message in messages] == [answer.json()["message"]["id"]]
            runs = (await client.get("/v1/runs")).json()["data"]
            assert [run["id"] for run in runs] == [answer.json()["run"]["id"]]


@asynccontextmanager
async def _proxied(chaos: Chaos) -> AsyncIterator[tuple[System, TcpProxy, str]]:
    async with (
        running_system(durable=True, tcp=True, forked=not chaos.full) as system,
        TcpProxy(system.servers.database_url) as proxy,
    ):
        yield system, proxy, proxy.url_of(system.environment()["DATABASE_URL"])
