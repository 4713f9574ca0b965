"""What is written down of a request or a run: enough to find it again, and nothing that anybody has said."""

import re
from collections.abc import AsyncIterator, MutableMapping
from typing import Any
from uuid import UUID

import httpx
import msgspec
import pytest
import structlog
from redis.asyncio import Redis
from structlog.contextvars import merge_contextvars

from common.config import Settings
from common.ids import new_id
from common.store.database import Pool
from tests.support.api_client import LiveApi, live_api, make_conversation, offer, post_message
from tests.support.eventually import eventually
from tests.support.scripted_provider import ScriptedProvider, says
from tests.support.seed import seed_run
from tests.support.worker_life import claim_execution, worker_resources
from worker.providers.base import ProviderError

Lines = list[MutableMapping[str, Any]]


@pytest.fixture
async def production(settings: Settings, pool: Pool) -> AsyncIterator[LiveApi]:
    """A server as it runs where it counts."""
    await offer(pool)
    changes = {"throughline_env": "production", "default_provider": "echo", "default_model": "echo"}
    async with live_api(msgspec.structs.replace(settings, **changes)) as api:
        yield api


async def _lines(lines: Lines, count: int) -> Lines:
    """The lines of answered requests, once there are so many."""

    def answered() -> Lines:
        return [line for line in lines if line["event"] == "request_answered"]

    await eventually(lambda: len(answered()) >= count)
    return answered()


@pytest.mark.parametrize(
    ("sent", "is_kept"),
    [("a-Request.of_mine-1", True), ("x" * 128, True), ("x" * 129, False), ("two words", False), ("a\tb", False)],
)
async def test_request_keeps_its_id_or_gets_one(api: LiveApi, sent: str, is_kept: bool) -> None:
    """What came in X-Request-Id goes back, if it is nothing but a name; else the answer bears a new one."""
    nobody = await api.client()
    for path in ("/health/live", "/v1/agents", "/there/is/nothing"):
        answer = await nobody.get(path, headers={"X-Request-Id": sent})
        [given] = answer.headers.get_list("x-request-id")
        assert (given == sent) == is_kept
        assert is_kept or re.fullmatch(r"[0-9a-f]{32}", given)


async def test_answered_request_is_one_line(production: LiveApi, workspace_id: UUID) -> None:
    """With its ids and its route; neither its query nor what was sent is in it, and probes have none."""
    client = await production.member(workspace_id)
    with structlog.testing.capture_logs(processors=[merge_contextvars]) as captured:
        conversation_id = await make_conversation(client)
        run = (await post_message(client, conversation_id, "a canary sings"))["run"]
        await client.get("/health/live")
        await client.get(f"/v1/runs/{run['id']}/stream?ticket=tkt_canary", headers={"X-Request-Id": "mine"})
        await client.get("/v1/runs/canary", headers={"Authorization": ""})
        lines: Any = await _lines(captured, 4)
    _, posted, streamed, refused = lines
    assert len(lines) == 4
    assert posted | {"ms": 0, "request_id": ""} == {
        "event": "request_answered",
        "log_level": "info",
        "method": "POST",
        "route": "/v1/conversations/{conversation_id}/messages",
        "status": 202,
        "ms": 0,
        "request_id": "",
        "workspace_id": str(workspace_id),
        "conversation_id": conversation_id,
        "run_id": run["id"],
    }
    assert (streamed["request_id"], streamed["run_id"], streamed["status"]) == ("mine", run["id"], 401)
    assert refused.keys().isdisjoint({"workspace_id", "run_id", "conversation_id"})
    assert "canary" not in str(captured)


async def test_access_log_can_be_left_out(production: LiveApi) -> None:
    """Where a proxy in front writes lines of its own."""
    async with live_api(msgspec.structs.replace(production.settings, access_log=False)) as quiet:
        with structlog.testing.capture_logs() as captured:
            await (await quiet.member(new_id())).get("/v1/agents")
            await (await production.member(new_id())).get("/v1/agents")
            await _lines(captured, 1)
    assert len(captured) == 1


async def test_all_that_is_logged_for_a_run_names_it(settings: Settings, pool: Pool, redis: Redis) -> None:
    """Also what is logged by code that knows nothing of runs."""
    provider = ScriptedProvider([ProviderError("overloaded", "later", retry_after_s=0)], says("done"))
    resources = worker_resources(settings, pool, redis, provider)
    seeded = await seed_run(pool, provider="scripted")
    execution = await claim_execution(resources)
    with structlog.testing.capture_logs(processors=[merge_contextvars]) as captured:
        await execution.run()
        structlog.get_logger("tests").info("afterwards")
    repeated, afterwards = captured
    assert repeated["event"] == "model_call_repeated"
    assert (repeated["run_id"], repeated["attempt"]) == (str(seeded.run.id), 1)
    assert repeated["workspace_id"] == str(seeded.workspace_id)
    assert "run_id" not in afterwards


async def test_request_on_a_kept_connection_is_another_one(production: LiveApi) -> None:
    """Nothing of the request before it on the same connection is logged for it."""
    async with httpx.AsyncClient(base_url=production.url, trust_env=False) as nobody:
        member = await production.member(new_id())
        token = member.headers["authorization"]
        with structlog.testing.capture_logs(processors=[merge_contextvars]) as captured:
            await nobody.get("/v1/agents", headers={"Authorization": token})
            await nobody.get("/v1/agents")
            first, second = await _lines(captured, 2)
    assert "workspace_id" in first
    assert "workspace_id" not in second
    assert first["request_id"] != second["request_id"]
