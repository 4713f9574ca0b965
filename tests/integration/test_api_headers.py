"""What browsers are told about answers: to run, frame, guess, keep and pass on nothing."""

import hashlib
import re
from base64 import b64encode

import httpx
import msgspec
import pytest

from common.config import Settings
from common.ids import new_id
from common.store.database import Pool
from tests.support.api_client import LiveApi, live_api, make_conversation, post_message
from tests.support.crawl import operations
from tests.support.hand_worker import answer


def _protected(found: httpx.Response) -> bool:
    told = found.headers
    return (
        told["x-content-type-options"] == "nosniff"
        and told["referrer-policy"] == "no-referrer"
        and told["cross-origin-resource-policy"] == "same-origin"
    )


async def test_every_answer_protects_itself(api: LiveApi, client: httpx.AsyncClient) -> None:
    """Answers and errors of every operation, and of paths that are none: no sniffing, no referrer, no embedding;
    nothing is run, framed or kept."""
    answers = [
        await client.request(each.method, each.path.format_map(dict.fromkeys(each.ids, str(new_id()))))
        for each in operations(api.app)
    ]
    answers += [
        await client.get(path) for path in ("/health/live", "/metrics", "/v1/nothing", "/nothing", "/v1/agents?x")
    ]
    answers += [await (await api.client()).get("/v1/agents")]
    assert {found.status_code for found in answers} >= {200, 204, 400, 401, 404}
    for found in answers:
        assert _protected(found), found.request.url
        assert found.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'", (
            found.request.url
        )
        assert found.headers["cache-control"] == "no-store", found.request.url


async def test_stream_protects_itself(client: httpx.AsyncClient, pool: Pool) -> None:
    """A stream keeps its own rule for caches, and is taken for nothing else."""
    run_id = (await post_message(client, await make_conversation(client)))["run"]["id"]
    await answer(pool)

    stream = await client.get(f"/v1/runs/{run_id}/stream")

    assert _protected(stream)
    assert stream.headers["cache-control"] == "no-cache, no-transform"
    assert stream.headers.get_list("x-content-type-options") == ["nosniff"]


async def test_reference_allows_its_own_style_and_nothing_else(client: httpx.AsyncClient) -> None:
    """No script at all, and the one style that it has by its hash."""
    page = await client.get("/schema")

    [style] = re.findall(r"<style>(.*?)</style>", page.text, re.DOTALL)
    digest = b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = page.headers["content-security-policy"]
    assert _protected(page)
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:;")
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert " style=" not in page.text


async def test_document_does_not_list_what_only_browsers_read(client: httpx.AsyncClient) -> None:
    """The OpenAPI document stays about the API."""
    assert "Content-Security-Policy" not in (await client.get("/schema/openapi.json")).text


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "https://app.example.evil.example", "http://app.example"]
)
async def test_page_of_a_stranger_reads_nothing(settings: Settings, origin: str) -> None:
    """Only the origins of CORS_ORIGINS may read answers; cookies are asked of nobody."""
    preflight = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}
    async with live_api(msgspec.structs.replace(settings, cors_origins=("https://app.example",))) as api:
        nobody = await api.client()
        for found in (
            await nobody.get("/health/live", headers={"Origin": origin}),
            await nobody.options("/v1/agents", headers={"Origin": origin, **preflight}),
        ):
            assert "access-control-allow-origin" not in found.headers
        listed = await nobody.options("/v1/agents", headers={"Origin": "https://app.example", **preflight})
        assert listed.headers["access-control-allow-origin"] == "https://app.example"
        assert "access-control-allow-credentials" not in listed.headers
    async with live_api(settings) as api:
        found = await (await api.client()).get("/health/live", headers={"Origin": origin})
        assert "access-control-allow-origin" not in found.headers
