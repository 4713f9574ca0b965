"""Agents over HTTP."""

import httpx
import pytest

from common.ids import new_id
from common.store.catalogue import Offers
from common.store.database import Pool
from tests.support.api_client import offer, refusal_of

FULL = {
    "name": "Ada",
    "instructions": "Be exact.",
    "provider": "other",
    "model": "other-2",
    "tools": ["current_time"],
    "maxSteps": 3,
    "settings": {"temperature": 0.5, "maxTokens": 100},
}


async def test_agent_is_made_with_defaults(client: httpx.AsyncClient) -> None:
    """A name is enough; every field is answered, null when empty, times in UTC."""
    answer = await client.post("/v1/agents", json={"name": "Ada"})

    assert answer.status_code == 201
    agent = answer.json()
    assert agent.pop("id")[14] == "7"
    assert agent.pop("createdAt").endswith("Z")
    assert agent.pop("updatedAt").endswith("Z")
    assert agent == {
        "name": "Ada",
        "instructions": None,
        "provider": None,
        "model": None,
        "tools": [],
        "maxSteps": 20,
        "settings": {},
        "createdBy": "alice",
    }


async def test_agent_is_read_as_it_was_made(client: httpx.AsyncClient) -> None:
    """What POST answered, GET and the list answer too."""
    made = (await client.post("/v1/agents", json=FULL)).json()

    assert {name: made[name] for name in FULL} == FULL
    assert (await client.get(f"/v1/agents/{made['id']}")).json() == made
    assert (await client.get("/v1/agents")).json() == {"data": [made], "nextCursor": None}


async def test_change_of_an_agent_leaves_absent_fields(client: httpx.AsyncClient) -> None:
    """PATCH changes what it names, and nothing else."""
    made = (await client.post("/v1/agents", json=FULL)).json()

    changed = (await client.patch(f"/v1/agents/{made['id']}", json={"name": "Bea"})).json()

    assert changed.pop("updatedAt") > made.pop("updatedAt")
    assert changed == {**made, "name": "Bea"}


async def test_null_clears_a_field_of_an_agent(client: httpx.AsyncClient) -> None:
    """PATCH with null brings a field back to its default."""
    made = (await client.post("/v1/agents", json=FULL)).json()
    cleared = ("instructions", "provider", "model", "tools", "maxSteps", "settings")

    changed = (await client.patch(f"/v1/agents/{made['id']}", json=dict.fromkeys(cleared))).json()

    assert [changed[name] for name in cleared] == [None, None, None, [], 20, {}]


async def test_tool_that_is_named_twice_is_kept_once(client: httpx.AsyncClient) -> None:
    """Providers refuse a list of tools in which a name comes twice."""
    twice = ["send_mail", "current_time", "send_mail"]
    made = (await client.post("/v1/agents", json={"name": "Ada", "tools": twice})).json()
    changed = (await client.patch(f"/v1/agents/{made['id']}", json={"tools": twice[::-1]})).json()

    assert made["tools"] == ["send_mail", "current_time"]
    assert changed["tools"] == ["send_mail", "current_time"]


async def test_deleted_agent_is_gone(client: httpx.AsyncClient) -> None:
    """After DELETE the agent is found nowhere, and a second DELETE finds nothing either."""
    path = f"/v1/agents/{(await client.post('/v1/agents', json=FULL)).json()['id']}"

    assert (await client.delete(path)).status_code == 204

    assert (await client.get(path)).status_code == 404
    assert (await client.patch(path, json={"name": "x"})).status_code == 404
    assert (await client.delete(path)).status_code == 404
    assert (await client.get("/v1/agents")).json()["data"] == []


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"tools": ["current_time", "fly"]}, "unknown_tool"),
        ({"provider": "nobody"}, "unknown_provider"),
        ({"provider": "anthropic"}, "provider_not_configured"),
    ],
)
async def test_agent_with_what_nobody_offers_is_refused(
    client: httpx.AsyncClient, fields: dict[str, object], code: str
) -> None:
    """A tool or provider that no worker offers is refused when it is chosen, also by a change."""
    made = (await client.post("/v1/agents", json={"name": "Ada"})).json()

    for answer in (
        await client.post("/v1/agents", json={"name": "Bea", **fields}),
        await client.patch(f"/v1/agents/{made['id']}", json=fields),
    ):
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)
    assert (await client.get("/v1/agents")).json()["data"] == [made]


async def test_provider_without_a_key_names_the_variable(client: httpx.AsyncClient) -> None:
    """Who chooses a provider that lacks its key learns which variable to set."""
    answer = await client.post("/v1/agents", json={"name": "Ada", "provider": "anthropic"})

    assert "ANTHROPIC_API_KEY" in answer.json()["error"]["message"]


async def test_nothing_is_refused_before_a_worker_has_spoken(client: httpx.AsyncClient, pool: Pool) -> None:
    """With an empty catalogue any tool and provider may be named."""
    await offer(pool, Offers())

    answer = await client.post("/v1/agents", json={"name": "Ada", "provider": "later", "tools": ["later"]})

    assert answer.status_code == 201


async def test_list_of_agents_is_complete_and_stable_under_inserts(client: httpx.AsyncClient) -> None:
    """Pages show every agent once, newest first, though new ones are made between them."""
    made = [(await client.post("/v1/agents", json={"name": str(i)})).json()["id"] for i in range(5)]
    seen: list[str] = []
    cursor = None
    while True:
        params = {"limit": 2} if cursor is None else {"limit": 2, "cursor": cursor}
        page = (await client.get("/v1/agents", params=params)).json()
        seen += [agent["id"] for agent in page["data"]]
        cursor = page["nextCursor"]
        if cursor is None:
            break
        await client.post("/v1/agents", json={"name": "late"})

    assert seen == made[::-1]


async def test_unknown_agent_is_not_found(client: httpx.AsyncClient) -> None:
    """An id that does not exist, and a text that is no id, get the same 404."""
    answers = [await client.get(f"/v1/agents/{name}") for name in (new_id(), "ada", "x" * 300, "%00")]

    assert {answer.status_code for answer in answers} == {404}
    assert len({answer.content for answer in answers}) == 1


async def test_unknown_path_is_not_found(client: httpx.AsyncClient) -> None:
    """A path that is none of ours gets a 404 which speaks of the path, not of a workspace."""
    for path in ("/nope", "/v1/agent", f"/v1/agents/{new_id()}/x", f"/v1/runs/{new_id()}/streams"):
        answer = await client.get(path)
        assert refusal_of(answer) == (404, "not_found")
        assert answer.json()["error"]["message"] == "There is nothing at this path."
