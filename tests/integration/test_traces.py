"""One trace from the request over the queue to the worker, its model and its tools; and nothing in it that was said."""

import asyncio
import gzip
import sys
from collections.abc import Iterator
from contextvars import Context
from typing import Any
from uuid import UUID

import httpx
import pytest
from aiohttp import web
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from redis.asyncio import Redis

from common.config import ConfigError, Settings, load_settings
from common.devserver.readiness import free_port
from common.model.run_state import Effect
from common.observability.tracing import close_tracing, current_traceparent, open_tracing, span, trace_with
from common.store.catalogue import Offers, ProviderOffer, ToolOffer
from common.store.database import Pool
from tests.support.api_client import make_conversation, offer, post_message
from tests.support.eventually import eventually
from tests.support.scripted_provider import ScriptedProvider, calls, says
from tests.support.worker_life import claim_execution, worker_resources
from worker.providers.base import ProviderError, TextDelta
from worker.run.resources import Resources
from worker.tools.base import tool

_TRACE = "0af7651916cd43dd8448eb211c80319c"
_PARENT = f"00-{_TRACE}-b7ad6b7169203331-01"


@tool(effect=Effect.READ)
async def look(word: str = "") -> str:
    """Looks a word up."""
    return f"canary result {word}"


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    """What is traced while a test runs."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace_with(provider)
    yield exporter
    trace_with(None)


@pytest.fixture
async def offered(pool: Pool) -> None:
    """A catalogue with the provider and the tool of these tests."""
    await offer(
        pool,
        Offers(
            providers=[ProviderOffer(name="scripted", configured=True, models=["a-model"], default=True)],
            tools=[ToolOffer(name="look", description="Looks.", parameters={}, effect=Effect.READ)],
        ),
    )


async def _post(client: httpx.AsyncClient, **headers: str) -> Any:
    conversation_id = await make_conversation(client, provider="scripted", model="a-model")
    client.headers.update(headers)
    return (await post_message(client, conversation_id, "canary question"))["run"]


async def _work(resources: Resources) -> None:
    """As another process: nothing of the request's context is here, only what its row says."""

    async def work() -> None:
        await (await claim_execution(resources)).run()

    await asyncio.create_task(work(), context=Context())


async def _named(spans: InMemorySpanExporter, name: str) -> ReadableSpan:
    found: list[ReadableSpan] = await eventually(
        lambda: [span for span in spans.get_finished_spans() if span.name == name]
    )
    return found[-1]


def _link(span: ReadableSpan) -> tuple[int, int | None]:
    return span.context.trace_id, None if span.parent is None else span.parent.span_id


async def test_run_is_one_trace_from_the_request_to_its_tools(
    settings: Settings,
    pool: Pool,
    redis: Redis,
    client: httpx.AsyncClient,
    offered: None,
    spans: InMemorySpanExporter,
    workspace_id: UUID,
) -> None:
    """It goes on with the caller's own trace, and each span lies below what caused it."""
    run = await _post(client, traceparent=_PARENT)
    provider = ScriptedProvider(calls(("look", '{"word": "canary"}')), says("canary answer"))
    await _work(worker_resources(settings, pool, redis, provider, {"look": look}))

    request = await _named(spans, "POST /v1/conversations/{conversation_id}/messages")
    attempt, model = await _named(spans, "invoke_agent"), await _named(spans, "chat a-model")
    called = await _named(spans, "execute_tool look")
    assert _link(request) == (int(_TRACE, 16), 0xB7AD6B7169203331)
    assert _link(attempt) == (int(_TRACE, 16), request.context.span_id)
    assert _link(model) == _link(called) == (int(_TRACE, 16), attempt.context.span_id)
    attributes = {span.name: dict(span.attributes or {}) for span in (request, attempt, model, called)}
    assert attributes[request.name]["http.response.status_code"] == 202
    assert attributes["invoke_agent"] | {"throughline.run.queued_s": 0} == {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.conversation.id": run["conversationId"],
        "gen_ai.provider.name": "scripted",
        "gen_ai.request.model": "a-model",
        "throughline.workspace.id": str(workspace_id),
        "throughline.run.id": run["id"],
        "throughline.run.attempt": 1,
        "throughline.run.queued_s": 0,
        "throughline.run.state": "completed",
    }
    assert attributes["chat a-model"]["gen_ai.usage.input_tokens"] == 10
    assert attributes["chat a-model"]["gen_ai.usage.output_tokens"] == 5
    assert attributes["execute_tool look"]["gen_ai.tool.name"] == "look"
    assert "canary" not in "".join(span.to_json() for span in spans.get_finished_spans())


async def test_failed_run_says_in_its_spans_how_it_failed(
    settings: Settings, pool: Pool, redis: Redis, client: httpx.AsyncClient, offered: None, spans: InMemorySpanExporter
) -> None:
    """A word for the kind of failure, and never its text."""
    await _post(client)
    provider = ScriptedProvider([TextDelta("some"), ProviderError("rejected", "canary refusal")])
    await _work(worker_resources(settings, pool, redis, provider))

    attempt, model = await _named(spans, "invoke_agent"), await _named(spans, "chat a-model")
    for failed, kind in ((attempt, "provider_rejected"), (model, "rejected")):
        assert (failed.attributes or {})["error.type"] == kind
        assert not failed.status.is_ok
    assert "canary" not in "".join(span.to_json() for span in spans.get_finished_spans())


async def test_run_that_nobody_traced_begins_a_trace_at_its_worker(
    settings: Settings, pool: Pool, redis: Redis, client: httpx.AsyncClient, offered: None, spans: InMemorySpanExporter
) -> None:
    """While the API is traced by nobody, or is of the version before."""
    trace_with(None)
    await _post(client, traceparent=_PARENT)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(spans))
    trace_with(provider)
    await _work(worker_resources(settings, pool, redis, ScriptedProvider(says("hi"))))

    attempt, model = await _named(spans, "invoke_agent"), await _named(spans, "chat a-model")
    assert attempt.parent is None
    assert _link(model) == (attempt.context.trace_id, attempt.context.span_id)
    assert {span.name for span in spans.get_finished_spans()} == {"invoke_agent", "chat a-model"}


@pytest.mark.parametrize("sent", ["nonsense", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "x" * 5000])
async def test_malformed_traceparent_begins_a_trace_of_its_own(
    client: httpx.AsyncClient, spans: InMemorySpanExporter, sent: str
) -> None:
    """Whatever stands there, the request is answered."""
    answer = await client.get("/v1/agents", headers={"traceparent": sent})
    assert answer.status_code == 200
    assert (await _named(spans, "GET /v1/agents")).parent is None


async def test_spans_reach_a_collector_by_the_usual_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over OTLP's HTTP, under the process's name, with the headers of the environment; the end waits for them."""
    received: asyncio.Queue[tuple[str, str | None, bytes]] = asyncio.Queue()

    async def collect(request: web.Request) -> web.Response:
        await received.put((request.path, request.headers.get("api-key"), await request.read()))
        return web.Response()

    app = web.Application()
    app.router.add_post("/v1/traces", collect)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port := free_port())
    await site.start()
    values = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
        "OTEL_EXPORTER_OTLP_HEADERS": "api-key=collector",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    try:
        open_tracing(load_settings(values), "throughline-api")
        with span("a span of ours", {}):
            assert current_traceparent() is not None
        await asyncio.to_thread(close_tracing)
        path, key, body = received.get_nowait()
    finally:
        trace_with(None)
        await runner.cleanup()
    assert (path, key) == ("/v1/traces", "collector")
    body = gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body
    assert b"throughline-api" in body
    assert b"a span of ours" in body


def test_tracing_without_its_packages_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has asked for traces is not left without them in silence; who has not needs no package."""
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    open_tracing(load_settings({}), "throughline-api")
    with span("nothing", {}) as nothing:
        assert (nothing, current_traceparent()) == (None, None)
    with pytest.raises(ConfigError, match=r"pip install 'throughline\[tracing\]'"):
        open_tracing(load_settings({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}), "throughline-api")
