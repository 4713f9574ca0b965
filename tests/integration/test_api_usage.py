"""`GET /v1/usage`: what a workspace has used, and nobody else's."""

import csv
import io
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import msgspec
import pytest

from api.routes import usage as usage_route
from common.config import Settings
from common.ids import new_id
from common.model.messages import Usage
from common.store.database import Pool, workspace_transaction
from tests.support.api_client import LiveApi, live_api, refusal_of
from tests.support.metered import meter

PRICES = {
    "currency": "USD",
    "prices": [
        {
            "provider": "anthropic",
            "model": "claude-*",
            "input": 3,
            "output": 15,
            "cachedInput": 0.3,
            "cacheWrite": 3.75,
        },
        {"provider": "openai", "model": "gpt", "from": "2026-11-02", "input": "2", "output": "8"},
        {"provider": "openai", "model": "gpt", "input": "1", "output": "4"},
    ],
}
AGENT = UUID(int=7)
CLAUDE = Usage(
    input_tokens=1000, output_tokens=100, cached_input_tokens=600, cache_write_tokens=200, reasoning_tokens=40
)
"""200 × 3 + 600 × 0.3 + 200 × 3.75 + 100 × 15 = 3,030 millionths."""
GPT = Usage(input_tokens=10, output_tokens=5)
CUT = Usage(input_tokens=7, output_tokens=3, estimated=True)
SPAN = {"from": "2026-11-01", "to": "2026-11-02"}

Ask = Callable[..., Awaitable[Any]]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """With prices."""
    return msgspec.structs.replace(settings, model_prices=msgspec.json.encode(PRICES).decode())


@pytest.fixture
async def metered(pool: Pool, workspace_id: UUID) -> None:
    """Four calls of two days, models and users, one of an agent; and one before and after."""
    claude: dict[str, Any] = {"provider": "anthropic", "model": "claude-a"}
    gpt: dict[str, Any] = {"provider": "openai", "model": "gpt"}
    await meter(pool, workspace_id, "2026-11-01T00:00:00Z", CLAUDE, **claude, agent_id=AGENT)
    await meter(pool, workspace_id, "2026-11-01T23:59:59.999999Z", GPT, **gpt)
    await meter(pool, workspace_id, "2026-11-02T00:00:00Z", GPT, **gpt, user="bob")
    await meter(pool, workspace_id, "2026-11-02T23:59:59.999999Z", CUT, **claude)
    await meter(pool, workspace_id, "2026-10-31T23:59:59.999999Z", CLAUDE, **claude)
    await meter(pool, workspace_id, "2026-11-03T00:00:00Z", CLAUDE, **claude)


@pytest.fixture
async def owner(api: LiveApi, workspace_id: UUID, metered: None) -> httpx.AsyncClient:
    """Who may see everything."""
    return await api.member(workspace_id, "owner", "olga")


async def _ask(client: httpx.AsyncClient, **params: Any) -> Any:
    answer = await client.get("/v1/usage", params={**SPAN, **params})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_total_adds_up_what_began_within_the_days(owner: httpx.AsyncClient) -> None:
    """From the first moment of the first day to the last of the last, in UTC: every figure, and the exact cost."""
    report = await _ask(owner)
    assert report["total"] == {
        "calls": 4,
        "estimatedCalls": 1,
        "unpricedCalls": 0,
        "inputTokens": 1027,
        "outputTokens": 113,
        "cachedInputTokens": 600,
        "cacheWriteTokens": 200,
        "reasoningTokens": 40,
        "estimatedTokens": 10,
        # 3,030 of Claude, 10 × 1 + 5 × 4, a day later 10 × 2 + 5 × 8, 7 × 3 + 3 × 15 of the one that was cut
        "cost": "0.003186",
    }
    assert (report["from"], report["to"], report["currency"]) == ("2026-11-01", "2026-11-02", "USD")


GROUPINGS: list[tuple[str, list[str], list[tuple[Any, ...]]]] = [
    ("day", ["day"], [("2026-11-02", 2, 25), ("2026-11-01", 2, 1115)]),
    ("model", ["provider", "model"], [("anthropic", "claude-a", 2, 1110), ("openai", "gpt", 2, 30)]),
    ("agent", ["agentId"], [(None, 3, 40), (str(AGENT), 1, 1100)]),
    ("user", ["user"], [("alice", 3, 1125), ("bob", 1, 15)]),
    (
        "user,day",
        ["day", "user"],
        [("2026-11-02", "alice", 1, 10), ("2026-11-02", "bob", 1, 15), ("2026-11-01", "alice", 2, 1115)],
    ),
]
"""What is asked for, what a group then says of itself, and each group with its calls and its input and output."""


async def test_calls_are_grouped_by_what_is_asked_for(owner: httpx.AsyncClient) -> None:
    """Each group says what its calls have in common, and nothing else; all of them make up the total."""
    for group_by, keys, groups in GROUPINGS:
        report = await _ask(owner, groupBy=group_by)
        found = [
            (*(group[key] for key in keys), group["calls"], group["inputTokens"] + group["outputTokens"])
            for group in report["data"]
        ]
        assert found == groups
        others = {"day", "provider", "model", "agentId", "user"}.difference(keys)
        assert {group[other] for group in report["data"] for other in others} == {None}
        assert sum(group["calls"] for group in report["data"]) == report["total"]["calls"]


async def test_price_changes_within_a_group(owner: httpx.AsyncClient) -> None:
    """Calls of two days with two prices are one group of a model, at what each day cost."""
    [_, gpt] = (await _ask(owner, groupBy="model"))["data"]
    assert gpt["cost"] == "0.00009"


async def test_model_without_price_has_no_cost(owner: httpx.AsyncClient, pool: Pool, workspace_id: UUID) -> None:
    """Null, and null in the total; the other groups keep theirs."""
    await meter(pool, workspace_id, "2026-11-01T12:00:00Z", GPT, provider="local", model="qwen")
    report = await _ask(owner, groupBy="model")
    assert [group["cost"] for group in report["data"]] == ["0.003096", None, "0.00009"]
    assert (report["total"]["cost"], report["total"]["unpricedCalls"]) == (None, 1)


async def test_usage_is_of_ones_own_workspace(stranger: httpx.AsyncClient, metered: None) -> None:
    """The owner of another workspace sees nothing of it."""
    report = await _ask(stranger, groupBy="user")
    assert (report["data"], report["total"]["calls"]) == ([], 0)


async def test_usage_outlives_what_was_deleted(owner: httpx.AsyncClient, pool: Pool, workspace_id: UUID) -> None:
    """Whatever is deleted, in the API's way or for good, has been used all the same."""
    before = await _ask(owner, groupBy="day,model,agent,user")
    for conversation in (await owner.get("/v1/conversations")).json()["data"]:
        assert (await owner.delete(f"/v1/conversations/{conversation['id']}")).status_code == 204
    assert await _ask(owner, groupBy="day,model,agent,user") == before
    async with workspace_transaction(pool, workspace_id) as connection:
        await connection.execute("delete from conversations")
        assert await connection.fetchval("select count(*) from runs") == 0
    assert await _ask(owner, groupBy="day,model,agent,user") == before


async def test_usage_of_one_conversation_is_told(owner: httpx.AsyncClient, pool: Pool, workspace_id: UUID) -> None:
    """Its calls alone, also when it is gone; of one that never was, nothing."""
    conversation_id = await meter(pool, workspace_id, "2026-11-01T12:00:00Z", CUT)
    async with workspace_transaction(pool, workspace_id) as connection:
        await connection.execute("delete from conversations where id = $1", conversation_id)
    assert (await _ask(owner, conversationId=conversation_id))["total"]["inputTokens"] == CUT.input_tokens
    assert (await _ask(owner, conversationId=new_id()))["total"]["calls"] == 0


@pytest.mark.parametrize("role", ["member", "viewer"])
async def test_who_has_used_how_much_is_told_to_owners_and_admins(
    api: LiveApi, workspace_id: UUID, metered: None, role: str
) -> None:
    """The others see the whole, and what they have used themselves."""
    bob = await api.member(workspace_id, role, "bob")
    assert (await _ask(bob, groupBy="day,model,agent"))["total"]["calls"] == 4
    assert (await _ask(bob, user="bob"))["total"]["calls"] == 1
    assert [group["user"] for group in (await _ask(bob, user="bob", groupBy="user"))["data"]] == ["bob"]
    for refused in ({"groupBy": "user"}, {"user": "alice"}, {"user": "alice", "groupBy": "day,user"}):
        assert refusal_of(await bob.get("/v1/usage", params=refused)) == (403, "forbidden")
    admin = await api.member(workspace_id, "admin", "ada")
    assert (await _ask(admin, user="alice", groupBy="user"))["total"]["calls"] == 3


async def test_pieces_make_up_the_whole(owner: httpx.AsyncClient) -> None:
    """Groups come in pieces, none twice and none left out; each piece tells the same total."""
    whole = await _ask(owner, groupBy="day,model,agent,user")
    found: list[Any] = []
    cursor = None
    for _ in whole["data"]:
        page = await _ask(owner, groupBy="day,model,agent,user", limit=1, **({"cursor": cursor} if cursor else {}))
        assert page["total"] == whole["total"]
        found += page["data"]
        cursor = page["nextCursor"]
    assert cursor is None
    assert found == whole["data"]
    assert len(found) == 4


async def test_cursor_is_good_for_its_question_alone(owner: httpx.AsyncClient) -> None:
    """Other days or groups are another list."""
    cursor = (await _ask(owner, groupBy="model", limit=1))["nextCursor"]
    for other in ({"groupBy": "agent"}, {"groupBy": "model", "to": "2026-11-03"}):
        answer = await owner.get("/v1/usage", params={**SPAN, **other, "cursor": cursor})
        assert refusal_of(answer) == (400, "invalid_cursor")


async def test_cursor_takes_the_longest_names(owner: httpx.AsyncClient, pool: Pool, workspace_id: UUID) -> None:
    """What the API has given out it takes back."""
    names: dict[str, Any] = {"provider": "p" * 40, "model": "\U0001f600" * 200}
    for user in ("\U0001f600" * 254 + "a", "\U0001f600" * 254 + "b"):
        await meter(pool, workspace_id, "2026-11-02T12:00:00Z", GPT, user=user, **names)
    page = await _ask(owner, groupBy="day,model,user", limit=3)
    rest = await _ask(owner, groupBy="day,model,user", limit=10, cursor=page["nextCursor"])
    assert [group["user"][-1] for group in (*page["data"][-1:], *rest["data"][:1])] == ["a", "b"]


async def test_default_is_the_last_thirty_days(owner: httpx.AsyncClient) -> None:
    """By day, up to and with today; with a first day alone up to today, with a last one alone 30 days up to it."""
    today = datetime.now(UTC).date()
    report = (await owner.get("/v1/usage")).json()
    days = (datetime.fromisoformat(report["to"]) - datetime.fromisoformat(report["from"])).days
    assert (days, report["groupBy"]) == (29, ["day"])
    assert timedelta(0) <= datetime.fromisoformat(report["to"]).date() - today <= timedelta(1)
    report = (await owner.get("/v1/usage", params={"to": "2026-11-02"})).json()
    assert report["from"] == "2026-10-04"


BAD_QUESTIONS: list[tuple[dict[str, str], str]] = [
    ({"from": "yesterday"}, "from: "),
    ({"from": "2026-11-31"}, "from: "),
    ({"to": "1700000000"}, "to: "),
    ({"from": "2026-11-02", "to": "2026-11-01"}, "from: later than `to`"),
    ({"from": "2025-11-01", "to": "2026-11-02"}, "from: 367 days are asked for; at most 366 are told"),
    ({"from": "0001-01-01"}, "from: "),
    ({"to": "9999-12-31"}, "to: there is no day after it"),
    ({"groupBy": "hour"}, "groupBy: "),
    ({"groupBy": ""}, "groupBy: "),
    ({"groupBy": "day,"}, "groupBy: "),
    ({"user": ""}, "user: "),
    ({"conversationId": "x"}, "conversationId: "),
    ({"user": "\x00"}, "user: text may not contain U+0000"),
    ({"limit": "0"}, "limit: "),
]


async def test_bad_question_is_refused(client: httpx.AsyncClient) -> None:
    """400, with the parameter's name; days at the very bounds are none of these."""
    for params, message in BAD_QUESTIONS:
        answer = await client.get("/v1/usage", params=params)
        assert refusal_of(answer) == (400, "invalid_request"), params
        assert answer.json()["error"]["message"].startswith(message), params
    for params in ({"to": "0001-01-02"}, {"from": "2025-11-02", "to": "2026-11-02"}):
        assert (await client.get("/v1/usage", params=params)).status_code == 200


async def test_too_many_groups_are_refused(owner: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A report is made in memory: what would not fit is asked for in parts."""
    monkeypatch.setattr(usage_route, "MAX_PARTS", 3)
    assert (await _ask(owner, to="2026-11-01"))["total"]["calls"] == 2
    answer = await owner.get("/v1/usage", params=SPAN)
    assert refusal_of(answer) == (400, "invalid_request")
    assert "ask for fewer days" in answer.text


async def test_csv_has_every_group(owner: httpx.AsyncClient, pool: Pool, workspace_id: UUID) -> None:
    """The columns that were asked for, all rows whatever the limit, and no name that a spreadsheet would calculate."""
    await meter(pool, workspace_id, "2026-11-02T12:00:00Z", GPT, model='=HYPERLINK("x")', user="-1")
    answer = await owner.get(
        "/v1/usage", params={**SPAN, "groupBy": "model,user", "limit": 1}, headers={"Accept": "text/csv"}
    )
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == 'attachment; filename="usage-2026-11-01-2026-11-02.csv"'
    header, *rows = csv.reader(io.StringIO(answer.text))
    assert header[:4] == ["provider", "model", "user", "calls"]
    assert [row[:3] + row[-2:] for row in rows] == [
        ["anthropic", "claude-a", "alice", "0.003096", "USD"],
        ["echo", '\'=HYPERLINK("x")', "'-1", "", "USD"],
        ["openai", "gpt", "alice", "0.00003", "USD"],
        ["openai", "gpt", "bob", "0.00006", "USD"],
    ]


async def test_server_does_not_start_with_bad_prices(settings: Settings) -> None:
    """A price list that cannot be read is told at once, not with the first question."""
    bad = msgspec.structs.replace(settings, model_prices="{}")
    with pytest.raises(Exception, match="MODEL_PRICES: currency is missing"):
        async with live_api(bad):
            pass


async def test_without_prices_nothing_has_a_cost(settings: Settings, pool: Pool) -> None:
    """No price list is made up."""
    workspace_id = new_id()
    await meter(pool, workspace_id, "2026-11-01T12:00:00Z", GPT)
    async with live_api(msgspec.structs.replace(settings, model_prices="")) as api:
        report = await _ask(await api.member(workspace_id))
    assert (report["currency"], report["total"]["cost"], report["total"]["unpricedCalls"]) == (None, None, 1)
