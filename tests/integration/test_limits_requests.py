"""How many requests are answered: a burst, then so many a second, for all APIs together."""

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID

import httpx
import msgspec
import pytest
from redis.asyncio import Redis

from api.limits.buckets import TAKE
from common.config import Settings
from common.devserver.cli import main
from common.ids import new_id
from common.store.database import Pool
from tests.support.api_client import make_token, refusal_of
from tests.support.eventually import eventually
from tests.support.limits import forget_nothing, limited_api, retry_after_of, set_limits
from tests.support.openai_api import RESPONSES
from tests.support.openai_api import refusal_of as openai_refusal_of
from tests.support.peer import peer
from tests.support.tcp_proxy import Mode, TcpProxy

SLOW = {"user_requests_per_s": 1, "user_requests_burst": 5}


async def passed(requests: int, send: Callable[[int], object]) -> tuple[int, float]:
    """How many of so many requests at once were let in, and how long all of them took."""
    began = time.monotonic()
    answers = await asyncio.gather(*(send(number) for number in range(requests)))  # type: ignore[call-overload]
    assert {answer.status_code for answer in answers} <= {200, 429}
    return sum(answer.status_code == 200 for answer in answers), time.monotonic() - began


async def drained(client: httpx.AsyncClient) -> httpx.Response:
    """The first refusal."""

    async def refused() -> httpx.Response | None:
        answer = await client.get("/v1/tools")
        return answer if answer.status_code == 429 else None

    answer = await eventually(refused, interval_s=0)
    assert isinstance(answer, httpx.Response)
    return answer


async def test_burst_of_one_user_is_counted_by_all_apis_together(
    settings: Settings, pool: Pool, workspace_id: UUID
) -> None:
    """Of twenty requests to two APIs about five pass, not ten; a moment later one more does."""
    async with limited_api(settings, pool, **SLOW) as one, limited_api(settings, pool, **SLOW) as two:
        clients = [await api.member(workspace_id) for api in (one, two)]
        count, seconds = await passed(20, lambda number: clients[number % 2].get("/v1/tools"))
        assert 5 <= count <= 5 + seconds + 1
        refused = await drained(clients[0])
        assert refusal_of(refused) == (429, "rate_limited")
        assert retry_after_of(refused) <= 2

        async def let_in() -> bool:
            return (await clients[1].get("/v1/tools")).status_code == 200

        await eventually(let_in, timeout_s=15, interval_s=0.2)


async def test_refusal_has_the_form_of_each_protocol(settings: Settings, pool: Pool, workspace_id: UUID) -> None:
    """Code and Retry-After, as each protocol's clients read them; nothing is done."""
    async with limited_api(settings, pool, user_requests_per_s=1, user_requests_burst=1) as api:
        client = await api.member(workspace_id)
        await drained(client)
        native = await client.post("/v1/conversations", json={})
        words = await client.post("/ai/chat", json={"id": "x", "messages": []})
        openai = await client.post(RESPONSES, json={"input": "x"})
        stream = await client.get(f"/v1/runs/{new_id()}/stream")
    for answer in (native, words, openai, stream):
        retry_after_of(answer)
    assert refusal_of(native) == refusal_of(stream) == (429, "rate_limited")
    assert words.headers["x-error-code"] == "rate_limited"
    assert words.text.startswith("Too many requests")
    assert openai_refusal_of(openai) == (429, "rate_limit_exceeded", None)
    assert openai.json()["error"]["type"] == "rate_limit_error"


async def test_one_users_requests_are_nobody_elses(settings: Settings, pool: Pool, workspace_id: UUID) -> None:
    """A colleague, another workspace, and what needs no token go on; an address that a client names changes nothing."""
    async with limited_api(settings, pool, **SLOW) as api:
        alice, bob = await api.member(workspace_id), await api.member(workspace_id, user="bob")
        elsewhere = await api.member(new_id())
        await drained(alice)
        count, seconds = await passed(
            10, lambda number: alice.get("/v1/tools", headers={"X-Forwarded-For": f"10.0.0.{number}"})
        )
        assert count <= seconds + 1
        for other in (bob, elsewhere):
            assert (await other.get("/v1/tools")).status_code == 200
        nobody = await api.client()
        for path in ("/health/live", "/health/ready", "/metrics", "/schema"):
            assert [(await nobody.get(path)).status_code for _ in range(6)] == [200] * 6, path
        forged = [await nobody.get("/v1/tools", headers={"X-Forwarded-For": "10.0.0.1"}) for _ in range(7)]
        assert {answer.status_code for answer in forged} == {401}


async def test_workspace_has_a_limit_for_all_its_users(settings: Settings, pool: Pool, workspace_id: UUID) -> None:
    """Many users of one workspace together; another one's are not touched."""
    async with limited_api(settings, pool, requests_per_s=1, requests_burst=5, user_requests_per_s=0) as api:
        users = [await api.member(workspace_id, user=f"user {number}") for number in range(12)]
        count, seconds = await passed(12, lambda number: users[number].get("/v1/tools"))
        assert 5 <= count <= 5 + seconds + 1
        assert (await (await api.member(new_id())).get("/v1/tools")).status_code == 200


async def test_workspace_may_have_limits_of_its_own(
    settings: Settings, pool: Pool, workspace_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an operator sets holds for this workspace alone, as long as it is set."""
    forget_nothing(monkeypatch)
    async with limited_api(settings, pool, **SLOW) as api:
        client, elsewhere = await api.member(workspace_id), await api.member(new_id())
        await set_limits(pool, workspace_id, user_requests_per_s=0)
        assert (await passed(20, lambda _: client.get("/v1/tools")))[0] == 20
        count, seconds = await passed(20, lambda _: elsewhere.get("/v1/tools"))
        assert count <= 5 + seconds + 1
        await set_limits(pool, workspace_id, user_requests_per_s=1)
        await drained(client)


async def test_changed_limits_hold_at_once_for_all_apis(redis: Redis) -> None:
    """A bucket emptied under another rate fills up at the new one: who was refused is let in a moment later."""
    take, changed, vast = redis.register_script(TAKE), f"limit:{new_id()}", f"limit:{new_id()}"
    for _ in range(50):
        assert await take([changed], [1, 50]) == 0
    assert 0 < await take([changed], [1, 1]) <= 1000
    assert await take([changed], [100, 1]) <= 10

    async def let_in() -> bool:
        return bool(await take([changed], [100, 1]) == 0)

    await eventually(let_in, timeout_s=15)
    assert await take([vast], [10**15, 10**15]) == 0


@pytest.mark.parametrize("fault", [Mode.DROP, Mode.BLACK_HOLE])
async def test_requests_are_answered_while_redis_is_away(
    settings: Settings, pool: Pool, workspace_id: UUID, fault: Mode
) -> None:
    """None fails or waits for it; each API then counts for itself, and together again later."""
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(TcpProxy(settings.redis_url))
        behind = msgspec.structs.replace(settings, redis_url=proxy.url, queue_redis_url=proxy.url)
        limit = {"user_requests_per_s": 1, "user_requests_burst": 30}
        api = await stack.enter_async_context(limited_api(behind, pool, **limit))
        other = await stack.enter_async_context(limited_api(settings, pool, **limit))
        client, at_other = await api.member(workspace_id), await other.member(workspace_id)
        assert (await client.get("/v1/tools")).status_code == 200
        proxy.switch(fault)
        began = time.monotonic()
        assert [(await client.get("/v1/tools")).status_code for _ in range(20)] == [200] * 20
        assert time.monotonic() - began < 30  # each would wait for 5 s
        count, _ = await passed(20, lambda _: at_other.get("/v1/tools"))
        assert count == 20
        assert refusal_of(await drained(client)) == (429, "rate_limited")
        proxy.switch(Mode.PASS)
        polls = 0
        carol_here, carol_there = [await each.member(workspace_id, user="carol") for each in (api, other)]

        async def counted_together() -> bool:
            nonlocal polls
            polls += 1
            await drained(carol_there)
            return (await carol_here.get("/v1/tools")).status_code == 429

        await eventually(counted_together, timeout_s=20, interval_s=0.2)
        assert polls < limit["user_requests_burst"]  # or this API had refused her by itself


async def test_socket_counts_as_a_request_and_comes_back(settings: Settings, pool: Pool, workspace_id: UUID) -> None:
    """Opened too soon it is closed with the code after which clients come back by themselves."""
    async with limited_api(settings, pool, user_requests_per_s=1, user_requests_burst=1) as api:
        token = make_token(settings.jwt_secret, (workspace_id, "member"))
        await drained(await api.client(token))
        headers: dict[str, Any] = {"additional_headers": {"authorization": f"Bearer {token}"}}

        async def refused() -> bool:
            async with peer(api.url, str(new_id()), **headers) as someone:
                return await someone.closed() == 4503

        await eventually(refused)


async def test_operator_sets_limits_on_the_command_line(
    settings: Settings,
    workspace_id: UUID,
    pool: Pool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Set, shown beside the default, and taken back; a name or a value that is wrong changes nothing."""
    monkeypatch.chdir(settings.throughline_data)
    monkeypatch.setenv("DATABASE_URL", settings.database_url)
    monkeypatch.setenv("LIMIT_STREAMS", "7")

    async def throughline(*arguments: str) -> tuple[int, str]:
        status = await asyncio.to_thread(main, ["limits", str(workspace_id), *arguments])
        said = capsys.readouterr()
        return status, " ".join((said.out or said.err).split())

    status, said = await throughline("set", "streams=70", "tokens_per_day=5")
    assert (status, "streams 70 (default: 7)" in said, "tokens_per_day 5 (default: none)" in said) == (0, True, True)
    for wrong in (("set", "fish=1"), ("set", "streams=-1"), ("set", "streams"), ("set",), ("reset",), ("reset", "x")):
        assert (await throughline(*wrong))[0] == 1, wrong
    status, said = await throughline("reset", "streams")
    assert (status, "streams 7 " in said, "tokens_per_day 5 (default: none)" in said) == (0, True, True)
    assert (await throughline())[1] == said
