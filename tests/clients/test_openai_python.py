"""openai-python, unmodified, against a whole system."""

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple, get_args

import httpx2
import openai
import pytest
import pytest_asyncio
from openai import AsyncOpenAI, DefaultAsyncHttpxClient
from openai.types.responses import Response, ResponseStreamEvent

from tests.clients.openai_clients import key_of, openai_client, openai_url, planned, programs
from tests.support.chaos import QUICK
from tests.support.eventually import eventually
from tests.support.fleet import Fleet
from tests.support.golden_responses import CASES, golden_of
from tests.support.model_script import Call, Reply, TokenCounts
from tests.support.processes import RunningProcess
from tests.support.system import Client, System, running_system
from tests.support.tcp_proxy import Mode, TcpProxy, Way

KNOWN = get_args(get_args(ResponseStreamEvent)[0])
pytestmark = pytest.mark.asyncio(loop_scope="module")


class Running(NamedTuple):
    """What the module shares."""

    system: System
    api: RunningProcess


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running() -> AsyncIterator[Running]:
    """A system with one API and one worker."""
    async with running_system(forked=True) as system:
        api = await system.api()
        await system.worker()
        yield Running(system, api)


@pytest_asyncio.fixture(loop_scope="module")
async def someone(running: Running) -> Client:
    """A member of a workspace of their own."""
    return await running.system.client(running.api)


@pytest_asyncio.fixture(loop_scope="module")
async def client(someone: Client) -> AsyncIterator[AsyncOpenAI]:
    """The package, as that member."""
    async with openai_client(someone) as client:
        yield client


def ids_of(response: Response) -> list[str]:
    return [str(item.id) for item in response.output]


def items_done(events: Sequence[Any]) -> list[Any]:
    """The items as the stream closed them, in the order of their indexes."""
    done = [event for event in events if event.type == "response.output_item.done"]
    return [event.item for event in sorted(done, key=lambda event: event.output_index)]


def text_of(events: Sequence[Any]) -> str:
    return "".join(event.delta for event in events if event.type == "response.output_text.delta")


def numbers_of(events: Sequence[Any]) -> list[int]:
    return [event.sequence_number for event in events]


async def test_response_is_the_same_plain_streamed_and_read(client: AsyncOpenAI) -> None:
    """create, its stream helper, its raw stream and retrieve agree on text, items, ids and usage."""
    plain = await client.responses.create(model="echo", input="hello there")
    assert plain.status == "completed"
    assert plain.output_text == "Echo from agent: hello there"
    assert plain.usage is not None
    assert plain.usage.total_tokens == plain.usage.input_tokens + plain.usage.output_tokens > 0
    async with client.responses.stream(response_id=plain.id) as stream:
        again = await stream.get_final_response()
    events = [event async for event in await client.responses.retrieve(plain.id, stream=True)]
    read = await client.responses.retrieve(plain.id)
    assert events[-1].type == "response.completed"
    for response in (again, read, events[-1].response):
        assert response.output_text == plain.output_text
        assert ids_of(response) == ids_of(plain)
        assert response.usage == plain.usage
    assert text_of(events) == plain.output_text
    assert [item.id for item in items_done(events)] == ids_of(plain)


async def test_stream_helper_sees_the_words_as_they_come(client: AsyncOpenAI) -> None:
    """`responses.stream` of a new response: snapshots grow, the final response holds it all."""
    async with client.responses.stream(model="echo/echo?delayMs=20", input="one two three") as stream:
        snapshots = [event.snapshot async for event in stream if event.type == "response.output_text.delta"]
        final = await stream.get_final_response()
    assert len(snapshots) > 1
    assert snapshots == sorted(snapshots, key=len)
    assert snapshots[-1] == final.output_text == "Echo from agent: one two three"


async def test_agents_tools_are_seen_as_mcp_calls(running: Running, client: AsyncOpenAI) -> None:
    """Reasoning, text, calls that succeed and fail, and the last answer: streamed and final items are equal."""
    calls = (Call("shout", {"word": "hey"}), Call("fail", {"reason": "no luck"}))
    running.system.models.script(
        Reply(reasoning="let me think", text="let me see", calls=calls),
        Reply(text="all done", tokens=TokenCounts(input=40, output=9, cached=10)),
        model="a-model-with-tools",
    )
    async with client.responses.stream(model="openrouter/a-model-with-tools", input="go") as stream:
        events = [event async for event in stream]
        final = await stream.get_final_response()
    assert [item.type for item in final.output] == ["reasoning", "message", "mcp_call", "mcp_call", "message"]
    reasoning, _, good, bad, _ = final.output
    assert reasoning.type == "reasoning"
    assert reasoning.summary[0].text == "let me think"
    assert good.type == bad.type == "mcp_call"
    assert (good.name, good.server_label, good.arguments, good.output, good.status) == (
        "shout",
        "throughline",
        '{"word":"hey"}',
        "HEY",
        "completed",
    )
    assert bad.status == "failed"
    assert bad.error is not None
    assert bad.error.type == "mcp_tool_execution_error"
    assert "no luck" in str(bad.error.content)
    assert [item.to_dict() for item in items_done(events)] == [
        item.to_dict() for item in (await client.responses.retrieve(final.id)).output
    ]
    assert final.usage is not None
    assert final.usage.input_tokens_details.cached_tokens == 10


async def test_background_response_is_polled(client: AsyncOpenAI) -> None:
    """`background=True` answers at once; retrieve shows how it goes on and ends."""
    response = await client.responses.create(model="echo/echo?delayMs=30", input="one two", background=True)
    assert response.status == "queued"

    async def completed() -> bool:
        return (await client.responses.retrieve(response.id)).status == "completed"

    await eventually(completed)
    assert (await client.responses.retrieve(response.id)).output_text == "Echo from agent: one two"


async def test_stream_goes_on_after_the_network_was_cut(running: Running, someone: Client) -> None:
    """Cut in mid-stream and resumed with `starting_after`: numbers go on, no letter is missing, none comes twice."""
    host, _, port = running.api.url.removeprefix("http://").partition(":")
    seen: list[ResponseStreamEvent] = []
    cuts = 0
    async with TcpProxy((host, int(port))) as proxy, openai_client(someone, f"http://{host}:{proxy.port}") as client:
        model = planned(steps=1, words=30, pause_ms=20)
        stream = await client.responses.create(model=model, input="go", background=True, stream=True)
        while not seen or seen[-1].type != "response.completed":
            before = len(seen)
            try:
                if cuts:  # Over a connection that may have been cut as well.
                    assert seen[0].type == "response.created"
                    stream = await client.responses.retrieve(
                        seen[0].response.id, stream=True, starting_after=seen[-1].sequence_number
                    )
                async for event in stream:
                    seen.append(event)
                    if len(seen) == before + 15:
                        proxy.switch(Mode.RESET, new=False)
            except openai.APIConnectionError:
                cuts += 1
        final = await client.responses.retrieve(seen[-1].response.id)
    assert cuts >= 2
    assert numbers_of(seen) == sorted(set(numbers_of(seen)))
    assert text_of(seen) == final.output_text
    assert [item.id for item in items_done(seen)] == ids_of(final)


async def test_cancelled_response_says_so_to_everybody(client: AsyncOpenAI) -> None:
    """Its stream ends with `response.incomplete`, cancel and retrieve say `cancelled`, the text so far stays."""
    stream = await client.responses.create(model="echo/echo?delayMs=50&repeat=500", input="one two", stream=True)
    events = []
    cancelled = None
    async for event in stream:
        events.append(event)
        if event.type == "response.output_text.delta" and cancelled is None:
            assert events[0].type == "response.created"
            cancelled = await client.responses.cancel(events[0].response.id)
    assert cancelled is not None
    assert events[-1].type == "response.incomplete"
    read = await client.responses.retrieve(cancelled.id)
    assert cancelled.status == read.status == events[-1].response.status == "cancelled"
    assert read.output_text == events[-1].response.output_text == text_of(events) != ""
    assert ids_of(read) == ids_of(events[-1].response)
    assert (await client.responses.cancel(cancelled.id)).status == "cancelled"


async def test_failure_of_the_provider_is_a_failed_response(running: Running, client: AsyncOpenAI) -> None:
    """No exception: `response.failed`, and a response with `error`, as OpenAI has it."""
    running.system.models.script(Reply(status=400), Reply(status=400), model="a-broken-model")
    events = [
        event
        async for event in await client.responses.create(model="openrouter/a-broken-model", input="go", stream=True)
    ]
    assert events[-1].type == "response.failed"
    plain = await client.responses.create(model="openrouter/a-broken-model", input="go")
    for response in (events[-1].response, plain):
        assert response.status == "failed"
        assert response.error is not None
        assert (response.error.code, response.error.type) == ("server_error", "provider_rejected")
        assert response.error.message
        assert response.output == []


async def test_conversation_goes_on_by_both_of_its_names(running: Running, client: AsyncOpenAI) -> None:
    """`previous_response_id` and `conversation`: the model reads what was said before, and `instructions` only once."""
    first = await client.responses.create(model="openrouter/m1", input="my name is Ada", instructions="Be kind.")
    second = await client.responses.create(model="openrouter/m2", input="and?", previous_response_id=first.id)
    assert second.conversation is not None
    third = await client.responses.create(
        model="openrouter/m3",
        conversation=second.conversation.id,
        input=[{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "what is my name?"}],
    )
    assert first.conversation == second.conversation == third.conversation
    told = {request.body["model"]: request.body["messages"] for request in running.system.models.requests}
    assert [message["role"] for message in told["m1"]] == ["system", "user"]
    assert [message["role"] for message in told["m2"]] == ["user", "assistant", "user"]
    assert [message["content"] for message in told["m3"] if message["role"] == "user"] == [
        "my name is Ada",
        "and?",
        "what is my name?",
    ]


async def test_models_are_listed(someone: Client, client: AsyncOpenAI) -> None:
    """The workspace's agents and the providers' models; each is found by its id, a slash in it or not."""
    await someone.http.post("/v1/agents", json={"name": "Scribe", "provider": "echo", "model": "echo"})
    listed = [model.id async for model in client.models.list()]
    assert listed[0] == "Scribe"
    assert "echo/echo" in listed
    for name in ("Scribe", "echo/echo"):
        assert (await client.models.retrieve(name)).id == name
    assert (await client.responses.create(model="Scribe", input="hi")).output_text == "Echo from agent: hi"


async def test_refusals_are_the_exceptions_that_are_expected(someone: Client, client: AsyncOpenAI) -> None:
    """Each status is the SDK's exception for it, with code, param and a message that says what to do."""
    with pytest.raises(openai.BadRequestError) as refused:
        await client.responses.create(model="echo", input="x", store=False)
    assert (refused.value.param, refused.value.code) == ("store", "invalid_request")
    assert "store: not supported yet" in refused.value.message
    with pytest.raises(openai.BadRequestError) as refused:
        await client.responses.create(model="nonsense", input="x")
    assert (refused.value.param, refused.value.code) == ("model", "model_not_found")
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve("resp_0")
    with pytest.raises(openai.AuthenticationError):
        await client.with_options(api_key="nonsense").responses.create(model="echo", input="x")
    busy = await client.responses.create(model="echo/echo?delayMs=1000&repeat=9", input="x", background=True)
    with pytest.raises(openai.ConflictError) as conflict:
        await client.responses.create(model="echo", input="y", previous_response_id=busy.id)
    assert busy.id in conflict.value.message
    await client.responses.cancel(busy.id)


async def test_repeated_post_with_a_key_begins_one_run(running: Running, someone: Client) -> None:
    """The SDK repeats a POST whose answer was lost; an `Idempotency-Key` of `extra_headers` makes that harmless."""
    host, _, port = running.api.url.removeprefix("http://").partition(":")
    async with TcpProxy((host, int(port))) as proxy, openai_client(someone, f"http://{host}:{proxy.port}") as client:
        proxy.cut_after(0, Way.REPLIES, Mode.RESET)
        response = await client.with_options(max_retries=2).responses.create(
            model="echo", input="only once", extra_headers={"Idempotency-Key": "a-key"}
        )
        assert response.output_text == "Echo from agent: only once"
        assert proxy.accepted == 2
    assert len((await someone.http.get("/v1/runs")).json()["data"]) == 1


@pytest.mark.parametrize("case", CASES)
async def test_recorded_stream_is_accepted_by_the_stream_helper(case: str) -> None:
    """It checks order, indexes, ids and what is left open; every event has the fields that the package declares."""
    body = b":ok\n\n: hb\n" + golden_of(case)
    headers = {"content-type": "text/event-stream"}
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, content=body, headers=headers))
    async with AsyncOpenAI(api_key="none", http_client=DefaultAsyncHttpxClient(transport=transport)) as client:
        events = [event async for event in await client.responses.retrieve("any", stream=True)]
        assert {type(event) for event in events} <= set(KNOWN)
        for event in events:
            type(event).model_validate(event.to_dict())
        async with client.responses.stream(response_id="any") as stream:
            await stream.until_done()


@pytest.mark.parametrize("program", programs("python"))
async def test_programs_of_the_documentation_run_as_they_stand(someone: Client, program: str) -> None:
    """Each is complete, and ends without an error."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-c", program),
        env={"OPENAI_BASE_URL": openai_url(someone.url), "OPENAI_API_KEY": key_of(someone)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, errors = await process.communicate()
    assert (process.returncode, errors) == (0, b"")
    assert said.strip()


async def test_killed_worker_costs_no_text_and_no_id() -> None:
    """`kill -9` in mid-answer: the given-up try is a part of its own, and the final items are those of the stream."""
    async with running_system(forked=True) as system:
        someone = await system.client(await system.api())
        fleet = Fleet(system, **QUICK)
        await fleet.grow(1)
        async with openai_client(someone) as client:
            events: list[Any] = []
            async with client.responses.stream(model=planned(words=40, pause_ms=50), input="go") as stream:
                async for event in stream:
                    events.append(event)
                    if event.type == "response.output_text.delta" and not fleet.orphans:
                        await fleet.kill(fleet.workers[0])
                        await fleet.grow(1)
                final = await stream.get_final_response()
            read = await client.responses.retrieve(final.id)
    parts = [event for event in events if event.type == "response.output_text.done"]
    assert [part.content_index for part in parts] == [0, 1]
    assert final.output_text == read.output_text == parts[1].text
    assert parts[0].text not in final.output_text
    assert len(final.output_text.split()) == 40
    assert numbers_of(events) == sorted(set(numbers_of(events)))
    assert [item.id for item in items_done(events)] == ids_of(final) == ids_of(read)
