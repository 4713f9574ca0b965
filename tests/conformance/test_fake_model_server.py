"""The fake model server itself: that it refuses what the real ones refuse, and tells the time for the bench."""

import time
from typing import Any

import pytest

from tests.conformance.conftest import ask, collect
from tests.support.fake_model_server import FakeModelServer
from tests.support.model_history_rules import find_violation
from worker.providers.base import Finish, HistoryMessage, HistoryToolCall, Provider, ProviderError, TextDelta

QUESTION = HistoryMessage(role="user", content="?")
CALL = HistoryMessage(role="assistant", content="", tool_calls=[HistoryToolCall(id="c1", name="f", arguments={})])
RESULT = HistoryMessage(role="tool", content="1", tool_call_id="c1")


@pytest.mark.parametrize(
    "history",
    [
        [QUESTION, CALL],
        [QUESTION, CALL, QUESTION],
        [QUESTION, CALL, QUESTION, RESULT],
        [QUESTION, RESULT],
        [QUESTION, CALL, RESULT, RESULT],
    ],
)
async def test_history_out_of_order(provider: Provider, server: FakeModelServer, history: list[HistoryMessage]) -> None:
    """A call without its result, a result without its call, or either at a wrong place: refused on every wire."""
    with pytest.raises(ProviderError) as caught:
        await collect(provider, ask(provider, *history))
    assert caught.value.kind == "rejected"
    assert server.open_streams == 0


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/messages", {"max_tokens": 1, "messages": []}),
        ("/v1/messages", {"max_tokens": 1, "messages": [{"role": "assistant", "content": "x"}]}),
        ("/v1/messages", {"max_tokens": 1, "messages": [{"role": "user", "content": " "}]}),
        ("/v1/messages", {"max_tokens": 1, "messages": [{"role": "user", "content": []}]}),
        ("/v1/messages", {"messages": [{"role": "user", "content": "x"}]}),
        ("/v1/chat/completions", {"messages": [{"role": "assistant", "content": None}]}),
        ("/v1/responses", {"input": [{"type": "reasoning", "id": "r"}]}),
        ("/v1/responses", {"input": [{"type": "reasoning", "id": "r"}, {"role": "user", "content": "x"}]}),
    ],
)
def test_body_against_the_rules(path: str, body: dict[str, Any]) -> None:
    """What else the real services refuse."""
    assert find_violation(path, body)


async def test_bench_model(provider: Provider, server: FakeModelServer) -> None:
    """Each token of a bench model carries the time of its sending, at the rate that the name asks for."""
    began = time.monotonic_ns()
    events = await collect(provider, ask(provider, model="bench?n=10&rate=200"))
    sent = [int(time) for event in events if isinstance(event, TextDelta) for time in event.text.split()]
    assert len(sent) == 10
    assert began < sent[0] < sent[-1] < time.monotonic_ns()
    assert sent[-1] - began >= 9 * 4_000_000, "however late the first ones were"
    assert events[-1] == Finish("stop")
