"""The provider without a key."""

import asyncio
from collections.abc import Sequence

import pytest

from common.model.messages import AgentSettings, Usage
from worker.providers.base import (
    Finish,
    HistoryMessage,
    HistoryToolCall,
    ModelRequest,
    ProviderError,
    ProviderEvent,
    TextDelta,
    ToolCallDelta,
    UsageReport,
)
from worker.providers.echo import EchoProvider


def user(content: str) -> HistoryMessage:
    return HistoryMessage(role="user", content=content)


def request(model: str, *history: HistoryMessage, max_tokens: int | None = None) -> ModelRequest:
    return ModelRequest(
        model=model,
        instructions="be kind",
        messages=list(history) or [user("hello there")],
        tools=[],
        settings=AgentSettings(max_tokens=max_tokens),
    )


async def collect(request: ModelRequest) -> list[ProviderEvent]:
    return [event async for event in EchoProvider().stream(request)]


def text(events: Sequence[ProviderEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


async def test_echo_of_last_message() -> None:
    """The last message of the user comes back word by word, with the white space that it had."""
    events = await collect(request("echo", user("first"), user("hello  there,\nyou ")))
    words = [event.text for event in events if isinstance(event, TextDelta)]
    assert words == ["Echo", " from", " agent:", " hello", "  there,", "\nyou", " "]
    assert events[-1] == Finish("stop")


async def test_echo_counts_words() -> None:
    """Its usage is the words of instructions and history, and those of the answer."""
    events = await collect(request("echo"))
    assert events[-2] == UsageReport(Usage(input_tokens=4, output_tokens=5))


async def test_echo_repeats() -> None:
    """`repeat` gives the answer's text so many times."""
    answer = text(await collect(request("echo?repeat=3", user("hi"))))
    assert answer == " ".join(["Echo from agent: hi"] * 3)


async def test_echo_with_delay() -> None:
    """`delayMs` passes before each word."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    await collect(request("echo?delayMs=10", user("hi")))
    assert loop.time() - began >= 0.04


async def test_echo_yields_to_others() -> None:
    """Without a delay, too, others get their turn between words."""
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(count_turns())
    await collect(request("echo?repeat=50"))
    other.cancel()
    assert turns >= 200


async def test_echo_calls_tools_then_answers() -> None:
    """With `tool`, a first step makes the calls, in parallel; the second answers, with the results below."""
    model = "echo?tool=add&tool=current_time&args=%7B%22a%22%3A1%7D"
    first = await collect(request(model, user("now?")))
    deltas = [event for event in first if isinstance(event, ToolCallDelta)]
    assert [(d.index, d.name, d.delta) for d in deltas] == [
        (0, "add", ""),
        (0, None, '{"a":1}'),
        (1, "current_time", ""),
        (1, None, "{}"),
    ]
    assert first[-1] == Finish("tool_calls")
    calls = [
        HistoryToolCall(id="c1", name="add", arguments={"a": 1}),
        HistoryToolCall(id="c2", name="current_time", arguments={}),
    ]
    history = [
        user("now?"),
        HistoryMessage(role="assistant", content="", tool_calls=calls),
        HistoryMessage(role="tool", content="2", tool_call_id="c1"),
        HistoryMessage(role="tool", content="12:00", tool_call_id="c2"),
    ]
    second = await collect(request(model, *history))
    assert text(second) == "Echo from agent: now?\nadd: 2\ncurrent_time: 12:00"
    assert second[-1] == Finish("stop")
    third = await collect(request(model, *history, user("again")))
    assert third[-1] == Finish("tool_calls")


async def test_echo_keeps_to_max_tokens() -> None:
    """The agent's `maxTokens` ends the answer after so many words, as a length stop."""
    events = await collect(request("echo", max_tokens=2))
    assert text(events) == "Echo from"
    assert events[-1] == Finish("length")


@pytest.mark.parametrize(
    ("model", "kind", "said"),
    [
        ("echo?fail=rate_limited", "rate_limited", ""),
        ("echo?fail=server&cutAfter=2", "server", "Echo from"),
        ("echo?cutAfter=1", "truncated", "Echo"),
        ("echo?cutAfter=0", "truncated", ""),
    ],
)
async def test_echo_fails_on_demand(model: str, kind: str, said: str) -> None:
    """`fail` and `cutAfter` end the answer in an error of that kind, after what was to be said."""
    events: list[ProviderEvent] = []

    async def read() -> None:
        async for event in EchoProvider().stream(request(model)):
            events.append(event)  # noqa: PERF401

    with pytest.raises(ProviderError) as caught:
        await read()
    assert caught.value.kind == kind
    assert text(events) == said
    assert not any(isinstance(event, Finish) for event in events)


@pytest.mark.parametrize(
    "model",
    [
        "echo?delayMs=fast",
        "echo?delayMs=-1",
        "echo?delayMs=60001",
        "echo?repeat=0",
        "echo?repeat=10001",
        "echo?fail=sometimes",
        "echo?unknown=1",
        "echo?delayMs",
        "echo?tool=a&args=[1]",
        "echo?tool=a&args={",
        "echo?args={}",
        "echo?cutAfter=-1",
    ],
)
async def test_echo_with_bad_option(model: str) -> None:
    """A bad option is refused with an error that names it, and nothing is said."""
    with pytest.raises(ProviderError, match="options of the model echo") as caught:
        await collect(request(model))
    assert (caught.value.kind, caught.value.retryable) == ("rejected", False)


async def test_echo_with_any_model() -> None:
    """The name before the options is free: a conversation may keep the model that another provider had."""
    assert text(await collect(request("claude-sonnet-4-20250514"))) == "Echo from agent: hello there"


async def test_echo_without_user_message() -> None:
    """A history without a user's message is echoed as an empty one."""
    assert text(await collect(request("echo", HistoryMessage(role="system", content="x")))) == "Echo from agent: "
