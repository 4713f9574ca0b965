"""What every provider makes of an answer over HTTP."""

import asyncio

import httpx2
import pytest

from tests.conformance.conftest import ask, collect
from tests.support.eventually import eventually
from tests.support.fake_model_server import FakeModelServer
from tests.support.model_script import Call, Reply, TokenCounts
from worker.providers.base import (
    Finish,
    HistoryMessage,
    HistoryToolCall,
    Provider,
    ReasoningDelta,
    StopReason,
    TextDelta,
    ToolCallDelta,
    ToolSpec,
    UsageReport,
)

WEATHER = ToolSpec(name="get_weather", description="Weather.", parameters={"type": "object"})


async def test_compressed_stream(provider: Provider, server: FakeModelServer) -> None:
    """A server in front of the model may compress its answer; it is read like any other."""
    server.script(Reply(text="one two  three", gzip=True))
    events = await collect(provider, ask(provider))
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == "one two  three"
    assert events[-1] == Finish("stop")


async def test_stream_is_read_where_it_arrives(
    provider: Provider, server: FakeModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer does not go through the generators of the SDK's response, for which a busy worker has no time."""

    def refuse(*_: object) -> None:
        raise AssertionError("read by way of the SDK")

    monkeypatch.setattr(httpx2.Response, "aiter_bytes", refuse)
    server.script(Reply(text="one"))
    assert (await collect(provider, ask(provider)))[-1] == Finish("stop")


async def test_stream_of_text(provider: Provider, server: FakeModelServer) -> None:
    """Text arrives as it was sent, in order and nothing else, and one Finish ends it."""
    server.script(Reply(text="one two  three"))
    events = await collect(provider, ask(provider))
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == "one two  three"
    assert events[-1] == Finish("stop")
    assert sum(isinstance(event, Finish) for event in events) == 1


async def test_stream_of_reasoning(provider: Provider, server: FakeModelServer) -> None:
    """Visible reasoning arrives apart from the text, and before it."""
    server.script(Reply(reasoning="let me think", text="done"))
    events = await collect(provider, ask(provider))
    shown = [event for event in events if isinstance(event, (ReasoningDelta, TextDelta))]
    assert shown == [ReasoningDelta("let "), ReasoningDelta("me "), ReasoningDelta("think"), TextDelta("done")]


async def test_stream_of_parallel_calls(provider: Provider, server: FakeModelServer) -> None:
    """Arguments are streamed in pieces; index, name and provider's id tell parallel calls of one tool apart."""
    paris, rome = Call("get_weather", {"city": "Paris"}, id="a1"), Call("get_weather", {"city": "Rome"}, id="b2")
    server.script(Reply(calls=(paris, rome)))
    events = await collect(provider, ask(provider, tools=[WEATHER]))
    deltas = [event for event in events if isinstance(event, ToolCallDelta)]
    for index, call in enumerate((paris, rome)):
        mine = [delta for delta in deltas if delta.index == index]
        assert (mine[0].name, mine[0].provider_call_id) == ("get_weather", call.id)
        assert all(delta.name is None and delta.provider_call_id is None for delta in mine[1:])
        assert "".join(delta.delta for delta in mine) == call.json
        assert len(mine) > 2
    last = events[-1]
    assert isinstance(last, Finish)
    assert last.reason == "tool_calls"


async def test_stream_of_malformed_arguments(provider: Provider, server: FakeModelServer) -> None:
    """Arguments that are no JSON pass as they are: judging them is not the provider's part."""
    server.script(Reply(calls=(Call("get_weather", '{"city": Par'),)))
    deltas = [e for e in await collect(provider, ask(provider, tools=[WEATHER])) if isinstance(e, ToolCallDelta)]
    assert "".join(delta.delta for delta in deltas) == '{"city": Par'


async def test_stream_with_usage(provider: Provider, server: FakeModelServer) -> None:
    """Usage is the same whoever reports it: input includes cached and written tokens, output the reasoning."""
    server.script(Reply(text="x", tokens=TokenCounts(input=900, output=50, cached=600, written=100, reasoning=30)))
    reports = [event.usage for event in await collect(provider, ask(provider)) if isinstance(event, UsageReport)]
    usage = reports[-1]
    assert (usage.input_tokens, usage.output_tokens) == (900, 50)
    assert (usage.cached_input_tokens, usage.cache_write_tokens, usage.reasoning_tokens) == (600, 100, 30)
    assert not usage.estimated


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (Reply(text="half a sent", stop="length"), "length"),
        (Reply(text="I cannot help.", stop="refusal"), "content_filter"),
    ],
)
async def test_stream_stopped_early(
    provider: Provider, server: FakeModelServer, reply: Reply, reason: StopReason
) -> None:
    """A length stop and a refusal are good ends, with their reasons; what was said is kept."""
    server.script(reply)
    events = await collect(provider, ask(provider))
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == reply.text
    assert events[-1] == Finish(reason)


async def test_stream_split_at_every_byte(provider: Provider, server: FakeModelServer) -> None:
    """Over real connections, too, chunks of one byte give the events of whole ones."""
    reply = Reply(reasoning="hmm", text="wörld 👋", calls=(Call("get_weather", {"city": "Paris"}),))
    server.script(reply, Reply(**{name: getattr(reply, name) for name in ("reasoning", "text", "calls")}, split=1))
    request = ask(provider, tools=[WEATHER])
    assert await collect(provider, request) == await collect(provider, request)


async def test_stream_after_stream(provider: Provider, server: FakeModelServer) -> None:
    """A connection whose answer was read to its end serves the next step."""
    for _ in range(3):
        await collect(provider, ask(provider))
    assert server.open_connections == 1


async def test_many_streams_at_once(provider: Provider, server: FakeModelServer) -> None:
    """No limit of the HTTP client holds a run back: 120 answers are open at the same time."""
    server.script(*[Reply(text="one two", hang_after=3)] * 120)
    tasks = [asyncio.create_task(collect(provider, ask(provider))) for _ in range(120)]
    await eventually(lambda: server.open_streams == 120, 30)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await eventually(lambda: server.open_connections == 0)


async def test_second_step_after_calls(provider: Provider, server: FakeModelServer) -> None:
    """What a first step gave, with its provider data, is accepted as the history of the second."""
    server.script(
        Reply(reasoning="hmm", text="Looking.", calls=(Call("get_weather", {"city": "Paris"}), Call("get_weather")))
    )
    events = await collect(provider, ask(provider, tools=[WEATHER]))
    last = events[-1]
    assert isinstance(last, Finish)
    history = tool_history(provider.name, last)
    assert (await collect(provider, ask(provider, *history, tools=[WEATHER])))[-1] == Finish("stop")
    sent = str(server.requests[-1].body)
    assert ("c2lnbmF0dXJl" in sent) == (provider.name == "anthropic")
    assert ("ZW5jcnlwdGVk" in sent) == (provider.name == "openai")


def tool_history(provider: str, finish: Finish) -> list[HistoryMessage]:
    """The history after a step with two calls, both of them answered."""
    calls = [
        HistoryToolCall(id="call_1", name="get_weather", arguments={"city": "Paris"}),
        HistoryToolCall(id="call_2", name="get_weather", arguments={}),
    ]
    return [
        HistoryMessage(role="user", content="weather?"),
        HistoryMessage(
            role="assistant",
            content="Looking.",
            tool_calls=calls,
            provider=provider,
            provider_data=finish.provider_data,
        ),
        HistoryMessage(role="tool", content="sunny", tool_call_id="call_1"),
        HistoryMessage(role="tool", content="no such city", tool_call_id="call_2", is_error=True),
    ]
