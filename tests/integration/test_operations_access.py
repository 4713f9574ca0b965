"""Who may see the whole system: superusers, and of it numbers, ids and codes alone."""

from typing import Any

import asyncpg
import httpx
import pytest

from common.ids import new_id
from common.store.database import Pool
from tests.support.api_client import LiveApi, make_conversation, make_token, post_message, refusal_of
from tests.support.hand_worker import claim, commit_step, fail

_SECRET = "a secret of a workspace"


@pytest.fixture
async def operator(api: LiveApi) -> httpx.AsyncClient:
    """A superuser who is no member of any workspace."""
    return await api.client(make_token(api.settings.jwt_secret, user="olga", is_superuser=True))


async def _routes(client: httpx.AsyncClient) -> list[tuple[str, str]]:
    paths = (await client.get("/schema/openapi.json")).json()["paths"]
    return [
        (method, path.format(run_id=new_id()))
        for path, methods in paths.items()
        for method in methods
        if path.startswith("/v1/ops/")
    ]


@pytest.mark.parametrize("claim", [None, False, "true", 1, [True], {"is_superuser": True}], ids=str)
async def test_nobody_but_a_superuser_is_answered(api: LiveApi, claim: Any) -> None:
    """The claim is the boolean true, or none: 403 on every route, also for the owner of a workspace; 401 for nobody."""
    token = make_token(api.settings.jwt_secret, (new_id(), "owner"), is_superuser=claim)
    owner, nobody = await api.client(token), await api.client()

    routes = await _routes(nobody)

    assert len(routes) == 5
    for method, path in routes:
        assert refusal_of(await owner.request(method, path)) == (403, "forbidden"), path
        assert refusal_of(await nobody.request(method, path)) == (401, "unauthorized"), path


async def test_member_learns_nothing_of_a_run_by_requeueing_it(
    client: httpx.AsyncClient, stranger: httpx.AsyncClient, pool: Pool
) -> None:
    """The refusal is the same for a run of one's own, of somebody else, and for none; nothing is started."""
    run_id = (await post_message(client, await make_conversation(client)))["run"]["id"]
    await fail(pool, await claim(pool))

    answers = [
        await who.post(f"/v1/ops/runs/{named}/requeue")
        for who, named in ((client, run_id), (stranger, run_id), (stranger, new_id()))
    ]

    assert [refusal_of(answer) for answer in answers] == [(403, "forbidden")] * 3
    assert len({answer.content for answer in answers}) == 1
    assert len((await client.get("/v1/runs")).json()["data"]) == 1


async def test_superuser_is_a_member_of_nothing_by_that(operator: httpx.AsyncClient) -> None:
    """The claim opens the operators' routes alone; what is of a workspace stays closed."""
    for path in ("/v1/conversations", "/v1/runs", "/v1/documents"):
        assert refusal_of(await operator.get(path)) == (403, "forbidden")


async def test_operators_see_no_content(client: httpx.AsyncClient, operator: httpx.AsyncClient, pool: Pool) -> None:
    """Neither messages nor titles nor what a provider said of a failure: none of it is in any answer."""
    agent = (await client.post("/v1/agents", json={"name": _SECRET, "instructions": _SECRET})).json()["id"]
    conversation = await make_conversation(client, title=_SECRET, systemPrompt=_SECRET, agentId=agent)
    await post_message(client, conversation, _SECRET)
    claimed = await claim(pool)
    await commit_step(pool, claimed, _SECRET)
    await fail(pool, claimed, message=_SECRET)

    answers = [await operator.get(path) for method, path in await _routes(operator) if method == "get"]
    answers.append(await operator.post(f"/v1/ops/runs/{claimed.run_id}/requeue"))

    assert [answer.status_code for answer in answers] == [200, 200, 200, 200, 202]
    assert str(claimed.run_id) in "".join(answer.text for answer in answers)
    assert [answer.text for answer in answers if _SECRET in answer.text] == []
    seen = (await client.get(f"/v1/runs/{claimed.run_id}")).json()
    assert seen["error"]["message"] == _SECRET


@pytest.mark.parametrize(
    "query",
    [
        "select error from runs",
        "select partial_text from runs",
        "select model from runs",
        "select model from model_calls",
        "select error_code from model_calls",
        "update requeues set requeued_by = ''",
        "select title from conversations",
    ],
)
async def test_functions_across_workspaces_could_read_no_content(database_url: str, query: str) -> None:
    """Their owner has a grant on each column that they need, and on no other."""
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute("set role throughline_scheduler")
        assert await connection.fetchval("select count(error_code) from runs") == 0
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(query)
    finally:
        await connection.close()


async def test_answers_have_every_field_that_the_document_lists(
    client: httpx.AsyncClient, operator: httpx.AsyncClient, pool: Pool
) -> None:
    """What an operator is answered has the shapes of the OpenAPI document, under the tag Operations."""
    document = (await operator.get("/schema/openapi.json")).json()
    shapes = document["components"]["schemas"]
    await post_message(client, await make_conversation(client))
    claimed = await claim(pool)
    await fail(pool, claimed)

    requeue = (await operator.post(f"/v1/ops/runs/{claimed.run_id}/requeue")).json()
    summary = (await operator.get("/v1/ops/summary")).json()
    failed = (await operator.get("/v1/ops/failed-runs")).json()

    for name, found in [
        ("Requeue", requeue),
        ("OperationsSummary", summary),
        ("Queue", summary["queues"][0]),
        ("Latency", summary["pickup"]),
        ("Minute", summary["lastMinute"]),
        ("EndedRuns", summary["ended"][0]),
        ("FailedRunPage", failed),
        ("FailedRun", failed["data"][0]),
    ]:
        assert set(shapes[name]["required"]) == set(found), name
    tags = {
        tag
        for path, methods in document["paths"].items()
        if path.startswith("/v1/ops/")
        for operation in methods.values()
        for tag in operation["tags"]
    }
    assert tags == {"Operations"}
    assert failed["data"][0]["requeue"] == requeue
