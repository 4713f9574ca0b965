"""Chat completions from servers that keep few of the rules."""

from typing import Any

import msgspec
import pytest

from worker.providers.base import (
    Finish,
    ProviderError,
    ProviderEvent,
    ReasoningDelta,
    StopReason,
    TextDelta,
    ToolCallDelta,
    UsageReport,
)
from worker.providers.openai_compatible import ChatFold


def fold(*chunks: dict[str, Any]) -> list[ProviderEvent]:
    """The events of chunks, and of a clean end without `[DONE]`."""
    reader = ChatFold("x")
    return [event for chunk in chunks for event in reader.feed(msgspec.json.encode(chunk))] + list(reader.end())


def delta(finish: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"choices": [{"delta": fields, "finish_reason": finish}]}


def call(arguments: Any = None, **fields: Any) -> dict[str, Any]:
    name = {"name": fields.pop("name")} if "name" in fields else {}
    return delta(tool_calls=[{**fields, "function": {**name, "arguments": arguments}}])


G = call("{}", index=1, id="b", name="g")


def joined(events: list[ProviderEvent]) -> list[tuple[str, str]]:
    """Name and whole arguments of each call, by index."""
    calls: list[tuple[str, str]] = []
    for event in events:
        if isinstance(event, ToolCallDelta):
            if event.name is not None:
                assert event.index == len(calls)
                calls.append((event.name, ""))
            name, arguments = calls[event.index]
            calls[event.index] = (name, arguments + event.delta)
    return calls


@pytest.mark.parametrize(
    "chunks",
    [
        # As OpenAI does it.
        [
            call("", index=0, id="a", name="f"),
            call('{"x":', index=0),
            call("1}", index=0),
            call("{}", index=1, id="b", name="g"),
        ],
        # No index: a name begins the next call.
        [call('{"x":', id="a", name="f"), call("1}"), call("{}", id="b", name="g")],
        # No index, and one id for all of them.
        [call('{"x":1}', id="call_0", name="f"), call("{}", id="call_0", name="g")],
        # Whole calls, all with index 0.
        [call('{"x":1}', index=0, id="a", name="f"), call("{}", index=0, id="b", name="g")],
        [call('{"x":1}', index=0, id="call_0", name="f"), call("{}", index=0, id="call_0", name="g")],
        # Arguments as an object, ids missing.
        [call({"x": 1}, index=0, name="f"), call({}, index=1, name="g")],
        # Name and id repeated in every piece.
        [
            call('{"x":', index=0, id="a", name="f"),
            call("1}", index=0, id="a", name="f"),
            call("{}", index=1, id="b", name="g"),
        ],
        # A new id in every piece.
        [call('{"x":', index=0, id="a", name="f"), call("1}", index=0, id="b"), call("{}", index=1, id="c", name="g")],
        # Pieces of two calls in turns.
        [
            call("", index=0, id="a", name="f"),
            call("", index=1, id="b", name="g"),
            call('{"x":1}', index=0),
            call("{}", index=1),
        ],
    ],
)
def test_calls_of_a_loose_server(chunks: list[dict[str, Any]]) -> None:
    """Two calls are told apart in every manner in which servers are known to send them."""
    events = fold(*chunks, delta("tool_calls"))
    assert joined(events) == [("f", '{"x":1}'), ("g", "{}")]
    assert events[-1] == Finish("tool_calls")


def test_long_arguments_are_not_looked_at_piece_by_piece() -> None:
    """However many pieces a call comes in, even with its name in each: its text is joined when it may be whole."""
    pieces = [call('{"x":"', index=0, id="a", name="f"), *[call("y" * 8, index=0, id="a", name="f")] * 50_000]
    events = fold(*pieces, call('"}', index=0, id="a", name="f"), delta("tool_calls"))
    assert joined(events) == [("f", '{"x":"' + "y" * 400_000 + '"}')]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("stop", "stop"),
        ("tool_calls", "stop"),
        ("length", "length"),
        ("content_filter", "content_filter"),
        ("sensitive", "content_filter"),
        ("eos", "other"),
    ],
)
def test_finish_reason_without_calls(given: str, reason: StopReason) -> None:
    """A finish reason means what it says, except that there are no tool calls where none came."""
    assert fold(delta(content="x"), delta(given))[-1] == Finish(reason)


@pytest.mark.parametrize("given", ["error", "network_error"])
def test_finish_reason_of_failure(given: str) -> None:
    """A server that finishes with an error has not answered."""
    with pytest.raises(ProviderError, match="failed in the middle") as caught:
        fold(delta(content="x"), delta(given))
    assert caught.value.retryable


def test_reasoning_under_both_names() -> None:
    """Reasoning that a server sends twice, under both names, is shown once."""
    events = fold(delta(reasoning="hm", reasoning_content="hm"), delta(reasoning_content="so"), delta("stop"))
    assert events[:-1] == [ReasoningDelta("hm"), ReasoningDelta("so")]


def test_usage_in_every_chunk() -> None:
    """Figures may come with each chunk, with nulls inside; the last one counts."""
    details = {"prompt_tokens_details": None, "completion_tokens_details": {"reasoning_tokens": None}}
    chunks = [delta(content="x") | {"usage": {"prompt_tokens": 5, "completion_tokens": n, **details}} for n in (1, 2)]
    reports = [event.usage for event in fold(*chunks, delta("stop")) if isinstance(event, UsageReport)]
    assert [(usage.input_tokens, usage.output_tokens) for usage in reports] == [(5, 1), (5, 2)]


def test_null_and_empty_fields() -> None:
    """Nulls and empty lists, wherever a server puts them, mean nothing."""
    nothing = {"content": None, "reasoning": None, "tool_calls": None, "refusal": None, "role": None}
    chunks: list[dict[str, Any]] = [
        {"choices": None, "usage": None},
        {"choices": []},
        {"choices": [{"delta": None}]},
        delta(**nothing),
    ]
    assert fold(*chunks, delta("stop", content="x")) == [TextDelta("x"), Finish("stop")]
