"""Health, metrics, and what the API answers while a store is gone."""

import asyncio
import time
from uuid import UUID

import asyncpg
import httpx
import msgspec
import structlog

from common.config import Settings
from common.ids import new_id
from common.scrape import Scrape
from common.store.database import open_pool
from common.store.migrate import load_migrations, migrate
from tests.support.api_client import LiveApi, live_api, make_conversation, post_message, refusal_of
from tests.support.eventually import eventually
from tests.support.servers import Servers, running_servers


async def test_healthy_process_says_so_to_anyone(api: LiveApi) -> None:
    """Live and ready need no token and no workspace."""
    nobody = await api.client()

    live, ready = await nobody.get("/health/live"), await nobody.get("/health/ready")

    assert (live.status_code, live.json()) == (200, {"status": "ok"})
    assert (ready.status_code, ready.json()) == (200, {"status": "ok", "postgres": "ok", "redis": "ok"})


async def test_process_without_redis_is_ready_and_degraded(settings: Settings) -> None:
    """It still takes messages, so a load balancer must not take it out of service; it says what is missing."""
    async with live_api(msgspec.structs.replace(settings, redis_url="redis://127.0.0.1:1")) as api:
        nobody = await api.client()

        ready = await nobody.get("/health/ready")

        assert (ready.status_code, ready.json()) == (200, {"status": "degraded", "postgres": "ok", "redis": "down"})
        assert (await nobody.get("/health/live")).status_code == 200


async def test_process_that_postgres_refuses_is_not_ready(settings: Settings) -> None:
    """A database that answers, but not to this process, is as good as none."""
    async with running_servers() as servers:
        url = servers.url_of("nowhere")
        await servers.embedded.postgres.stop()
        async with live_api(msgspec.structs.replace(settings, database_url=url)) as api:
            await servers.embedded.postgres.start()
            with structlog.testing.capture_logs() as logs:
                ready = await (await api.client()).get("/health/ready")
            assert (ready.status_code, ready.json()["postgres"]) == (503, "down")
            assert [log["event"] for log in logs] == ["store_refuses"]


async def test_process_on_a_database_without_migrations_waits_for_them(settings: Settings, servers: Servers) -> None:
    """An API whose tables are not there yet is not ready, says once what is missing, and needs no restart."""
    url = await servers.create_database(template=None)
    files = load_migrations()
    with structlog.testing.capture_logs() as logs:
        async with live_api(msgspec.structs.replace(settings, database_url=url)) as api:
            nobody = await api.client()
            for migrations in (files[:5], files):
                for _ in range(2):
                    ready = await nobody.get("/health/ready")
                    assert (ready.status_code, ready.json()["postgres"]) == (503, "behind")
                await migrate(url, migrations)
            assert (await nobody.get("/health/ready")).status_code == 200
    said = [log["missing"] for log in logs if log["event"] == "database_lacks_migrations"]
    assert said == [[file.name for file in files], [files[-1].name]]
    await servers.drop_database(url)


async def test_process_that_starts_before_postgres_waits_for_it(settings: Settings, workspace_id: UUID) -> None:
    """It answers, and is not ready; once Postgres is there, it is, without a restart."""
    async with running_servers(durable=True) as servers:
        url = await servers.create_database()
        await servers.embedded.postgres.stop()
        async with live_api(msgspec.structs.replace(settings, database_url=url)) as api:
            client = await api.member(workspace_id)
            ready = await client.get("/health/ready")
            assert (ready.status_code, ready.json()) == (
                503,
                {"status": "unavailable", "postgres": "down", "redis": "ok"},
            )
            assert refusal_of(await client.get("/v1/agents")) == (503, "unavailable")

            await servers.embedded.postgres.start()

            assert (await client.get("/health/ready")).json()["status"] == "ok"
            assert (await client.get("/v1/agents")).status_code == 200


async def test_postgres_that_is_gone_is_a_503_and_heals(settings: Settings, workspace_id: UUID) -> None:
    """Requests get `unavailable` with Retry-After, fast, and work again without a restart once Postgres is back."""
    async with running_servers(durable=True) as servers:
        url = await servers.create_database()
        settings = msgspec.structs.replace(settings, database_url=url, default_provider="echo", default_model="echo")
        async with live_api(settings) as api:
            client = await api.member(workspace_id)
            conversation_id = await make_conversation(client)
            path = f"/v1/conversations/{conversation_id}/messages"
            await servers.embedded.postgres.stop()

            begun = time.monotonic()
            for answer in await asyncio.gather(
                client.get("/v1/agents"),
                client.get(path),
                client.post(path, json={"content": "x"}),
                client.get("/v1/models"),
            ):
                assert refusal_of(answer) == (503, "unavailable")
                assert answer.headers["retry-after"] == "1"
            ready = await client.get("/health/ready")
            assert (ready.status_code, ready.json()["postgres"]) == (503, "down")
            assert time.monotonic() - begun < 10

            await servers.embedded.postgres.start()

            async def posted() -> bool:
                return (await client.post(path, json={"content": "x"})).status_code == 202

            await eventually(posted, timeout_s=10)
            assert [m["content"] for m in (await client.get(path)).json()["data"]] == ["x"]


async def test_error_of_ours_says_nothing_of_the_inside(api: LiveApi, workspace_id: UUID, database_url: str) -> None:
    """500 with a message that names no table, no statement and no reason."""
    client = await api.member(workspace_id)
    owner = await asyncpg.connect(database_url)
    await owner.execute("alter table agents rename to hidden_name")
    await owner.close()

    with structlog.testing.capture_logs() as logs:
        answer = await client.get("/v1/agents", params={"workspaceId": str(workspace_id)})

    assert refusal_of(answer) == (500, "internal")
    assert answer.json()["error"]["message"] == "Something went wrong on our side."
    assert [(log["event"], log["path"]) for log in logs] == [("request_failed", "/v1/agents")]
    assert isinstance(logs[0]["exc_info"], asyncpg.UndefinedTableError)


async def test_metrics_count_requests_by_route(api: LiveApi, workspace_id: UUID) -> None:
    """A request is counted under its route's template, never under an id."""
    client = await api.member(workspace_id)
    await client.get(f"/v1/runs/{workspace_id}")

    figures = (await client.get("/metrics")).text

    assert 'throughline_http_requests_total{method="GET",route="/v1/runs/{run_id}",status="404"} 1.0' in figures
    assert str(workspace_id) not in figures


async def test_metrics_tell_of_streams_queue_and_pool(api: LiveApi, client: httpx.AsyncClient) -> None:
    """What this process holds open, and what waits in the whole system."""
    run = (await post_message(client, await make_conversation(client)))["run"]
    async with client.stream("GET", f"/v1/runs/{run['id']}/stream"):

        async def told() -> bool:
            lines = (await client.get("/metrics")).text.splitlines()
            return 'throughline_stream_readers{position="live"} 1.0' in lines

        await eventually(told)
        lines = (await client.get("/metrics")).text.splitlines()

    for line in (
        "throughline_streams_open 1.0",
        "throughline_relay_subscriptions 1.0",
        "throughline_document_rooms 0.0",
        'throughline_queue_runs{priority="interactive",state="due"} 1.0',
        'throughline_pool_limit{pool="requests"} 10.0',
    ):
        assert line in lines


async def test_metrics_without_a_token_are_for_this_machine_alone(api: LiveApi) -> None:
    """What a proxy forwards may come from anybody."""
    nobody = await api.client()
    assert (await nobody.get("/metrics")).status_code == 200
    forwarded = await nobody.get("/metrics", headers={"X-Forwarded-For": "192.0.2.1"})
    assert refusal_of(forwarded) == (401, "unauthorized")


async def test_metrics_with_a_token_are_for_who_has_it(settings: Settings) -> None:
    """Also on the machine itself; a token of the API's own is none."""
    async with live_api(msgspec.structs.replace(settings, metrics_token="let me look")) as api:
        assert refusal_of(await (await api.client()).get("/metrics")) == (401, "unauthorized")
        assert refusal_of(await (await api.member(new_id())).get("/metrics")) == (401, "unauthorized")
        assert (await (await api.client("let me look")).get("/metrics")).status_code == 200


async def test_metrics_without_postgres_lack_the_queue_alone(settings: Settings) -> None:
    """A figure that cannot be had is absent, not old."""
    pool = await open_pool(settings)
    scrape = Scrape()
    scrape.watch(pool, requests=pool)
    assert b'throughline_queue_runs{priority="interactive",state="due"} 0.0' in await scrape.render()
    await pool.close()
    scrape.watch(pool, requests=pool)

    figures = await scrape.render()

    assert b"throughline_queue_runs{" not in figures
    assert b'throughline_pool_limit{pool="requests"} 10.0' in figures


async def test_pages_of_configured_origins_may_call(settings: Settings, workspace_id: UUID) -> None:
    """A browser on a listed origin passes, also when the answer is an error; any other one does not."""
    async with live_api(msgspec.structs.replace(settings, cors_origins=("https://app.example",))) as api:
        client = await api.member(workspace_id)
        for origin, allowed in (("https://app.example", "https://app.example"), ("https://evil.example", None)):
            preflight = await client.options(
                "/v1/agents",
                headers={
                    "Origin": origin,
                    "Access-Control-Request-Method": "POST",
                    "Access-Control-Request-Headers": "authorization,x-workspace-id,idempotency-key",
                },
            )
            failed = await client.get("/v1/agents?limit=0", headers={"Origin": origin})

            assert (preflight.status_code < 300) == (allowed is not None)
            for answer in (preflight, failed):
                assert answer.headers.get("access-control-allow-origin") == allowed
