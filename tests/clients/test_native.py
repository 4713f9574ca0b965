"""The native stream with the clients that people already have for SSE, through a network that breaks in mid-answer."""

import asyncio
import json
import re
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.clients.node import NodeScript, node_script
from tests.support.planned_model import plan
from tests.support.processes import RunningProcess
from tests.support.system import Client, System, fold, running_system
from tests.support.tcp_proxy import Mode, TcpProxy

pytestmark = pytest.mark.asyncio(loop_scope="module")
_ROOT = Path(__file__).resolve().parents[2]
_LONG = plan(steps=1, tools="look", words=40, pause_ms=40)
_QUEUED_S = 15.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running() -> AsyncIterator[tuple[System, RunningProcess]]:
    """A system with one API and one worker."""
    async with running_system(forked=True) as system:
        api = await system.api()
        await system.worker()
        yield system, api


@pytest_asyncio.fixture(loop_scope="module")
async def someone(running: tuple[System, RunningProcess]) -> Client:
    """A member of a workspace of their own."""
    system, api = running
    return await system.client(api)


@asynccontextmanager
async def network(client: Client) -> AsyncIterator[TcpProxy]:
    """What lies between this client and the API."""
    url = httpx.URL(client.url)
    async with TcpProxy((url.host, url.port or 80)) as proxy:
        yield proxy


@pytest.mark.parametrize("break_", [Mode.RESET, Mode.DROP])
async def test_event_source_resumes_by_itself(someone: Client, break_: Mode) -> None:
    """npm's `eventsource`, with a ticket: after a break it goes on where it was; nothing is missing or doubled."""
    run = await someone.start("go", provider="anthropic", model=_LONG)
    ticket = (await someone.http.post("/v1/tickets", json={"runId": run["id"]})).json()["ticket"]
    async with network(someone) as proxy:
        url = f"http://{proxy.host}:{proxy.port}/v1/runs/{run['id']}/stream?ticket={ticket}"
        async with node_script("native", "event_source.mjs", {"STREAM": url}) as script:
            await _see_tokens(script, 5)
            proxy.switch(break_, new=False)
            await script.next("end")
            assert proxy.accepted == 2
            await _check(someone, run, script)


async def test_event_source_is_told_that_there_is_no_more(someone: Client) -> None:
    """One that comes back after the end, with the last id, gets 204 and stops asking."""
    run = await someone.start("go", provider="anthropic", model=plan(words=3))
    last = (await _frames(someone, run))[-1]["id"]
    ticket = (await someone.http.post("/v1/tickets", json={"runId": run["id"]})).json()["ticket"]
    url = f"{someone.url}/v1/runs/{run['id']}/stream?ticket={ticket}&after={last}"
    async with node_script("native", "event_source.mjs", {"STREAM": url}) as script:
        error = await script.next("error")
    assert (error["code"], error["closed"]) == (204, True)


async def test_fetch_event_source_posts_again_and_attaches(someone: Client) -> None:
    """Its repeated POST, with the last id, starts no second run: it reads the rest of the first one."""
    conversation_id = await someone.conversation()
    async with network(someone) as proxy:
        post = {
            "url": f"http://{proxy.host}:{proxy.port}/v1/conversations/{conversation_id}/messages",
            "headers": {"Authorization": someone.headers["authorization"], "Accept": "text/event-stream"},
            "body": {"content": "go", "provider": "anthropic", "model": _LONG},
        }
        async with node_script("native", "fetch_event_source.mjs", {"POST": json.dumps(post)}) as script:
            await _see_tokens(script, 5)
            proxy.switch(Mode.RESET, new=False)
            await script.next("end")
            assert proxy.accepted == 2
            [run] = (await someone.http.get("/v1/runs", params={"conversationId": conversation_id})).json()["data"]
            await _check(someone, run, script)
            assert {line["name"] for line in script.seen if line["event"] == "message"} == {""}


async def test_httpx_sse_of_the_docs_resumes(someone: Client) -> None:
    """Python's httpx-sse as docs/clients/native.md uses it: over a break, every event once and in order."""
    run = await someone.start("go", provider="anthropic", model=_LONG)
    seen: list[dict[str, Any]] = []
    async with network(someone) as proxy:
        url = f"http://{proxy.host}:{proxy.port}/v1/runs/{run['id']}/stream"
        events = _follow_of_the_docs()(url, someone.headers["authorization"].removeprefix("Bearer "))
        while (event := await asyncio.to_thread(next, events, None)) is not None:
            seen.append(event)
            if len(seen) == 8:
                proxy.switch(Mode.RESET, new=False)
        assert proxy.accepted == 2
    assert seen == [_without_id(frame) for frame in await _frames(someone, run)]


def _follow_of_the_docs() -> Callable[[str, str], Iterator[dict[str, Any]]]:
    text = (_ROOT / "docs/clients/native.md").read_text("utf-8")
    [code] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    follow: Callable[[str, str], Iterator[dict[str, Any]]] = names["follow"]
    return follow


async def test_curl_shows_the_stream_and_goes_on(someone: Client) -> None:
    """`curl -N` prints each event as it comes; cut off, it goes on with the header that the docs name."""
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("needs curl")
    run = await someone.start("go", provider="anthropic", model=_LONG)

    async def show(url: str, *more: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            curl,
            *("-sN", f"{url}/v1/runs/{run['id']}/stream", "-H", f"Authorization: {someone.headers['authorization']}"),
            *more,
            stdout=asyncio.subprocess.PIPE,
        )

    async with network(someone) as proxy:
        url = f"http://{proxy.host}:{proxy.port}"
        first = await show(url)
        assert first.stdout is not None
        shown = b""
        while shown.count(b'"type":"token"') < 5:
            shown += await first.stdout.readline()
        proxy.switch(Mode.RESET, new=False)
        shown += await first.stdout.read()
        assert await first.wait() != 0, "a broken stream must not look like its end"
        whole = shown[: shown.rindex(b"\n\n") + 2]
        last = _parse(whole)[-1][0]
        second = await show(url, "-H", f"Last-Event-ID: {last}")
        rest, _ = await second.communicate()
        assert second.returncode == 0
    await _check_events(someone, run, _parse(whole) + _parse(rest))


def _parse(text: bytes) -> list[tuple[str, dict[str, Any]]]:
    """Ids and events of what curl has printed."""
    frames = [block.split(b"\n") for block in text.split(b"\n\n") if b"data: " in block]
    fields = [dict(line.split(b": ", 1) for line in lines if b": " in line and line[0] != 58) for lines in frames]
    return [(frame[b"id"].decode(), json.loads(frame[b"data"])) for frame in fields]


async def _see_tokens(script: NodeScript, count: int) -> None:
    tokens = 0
    while tokens < count:
        tokens += (await script.next("message", _QUEUED_S))["data"]["type"] == "token"


def _without_id(frame: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in frame.items() if name != "id"}


async def _frames(someone: Client, run: dict[str, Any]) -> list[dict[str, Any]]:
    stream = await someone.stream(run)
    return [{"id": frame.id, **frame.event} for frame in await stream.read_to_end()]


async def _check(someone: Client, run: dict[str, Any], script: NodeScript) -> None:
    messages = [line for line in script.seen if line["event"] == "message"]
    await _check_events(someone, run, [(line["id"], line["data"]) for line in messages])


async def _check_events(someone: Client, run: dict[str, Any], seen: list[tuple[str, dict[str, Any]]]) -> None:
    """The client has every event once, in order, and folds them to what the conversation holds."""
    whole = await _frames(someone, run)
    assert [(id_.rpartition(":")[2], event["type"]) for id_, event in seen] == [
        (event["id"].rpartition(":")[2], event["type"]) for event in whole
    ]
    messages, end = fold([event for _, event in seen])
    assert end is not None
    assert end["type"] == "done"
    stored = [message["content"] for message in await someone.messages(run) if message["role"] != "user"]
    assert [message["content"] for message in messages] == stored
