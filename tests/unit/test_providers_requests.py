"""What each model is asked, and what is left out because it would refuse it."""

from typing import Any

import pytest

from common.model.messages import AgentSettings
from worker.providers import anthropic_request, openai_request
from worker.providers.base import HistoryMessage, ModelRequest

HOT = AgentSettings(temperature=0.7, top_p=0.9)


def request(model: str, settings: AgentSettings) -> ModelRequest:
    hello = [HistoryMessage(role="user", content="hello")]
    return ModelRequest(model=model, instructions="", messages=hello, tools=[], settings=settings)


@pytest.mark.parametrize(
    ("model", "settings", "expected"),
    [
        ("claude-sonnet-4-20250514", HOT, {"max_tokens": 32000, "temperature": 0.7}),
        ("claude-sonnet-4-6", AgentSettings(top_p=0.9), {"max_tokens": 32000, "top_p": 0.9}),
        ("claude-3-5-haiku-20241022", AgentSettings(), {"max_tokens": 8192}),
        ("claude-3-5-haiku-20241022", AgentSettings(max_tokens=50), {"max_tokens": 50}),
        ("claude-opus-4-8", HOT, {"max_tokens": 32000}),
        ("claude-sonnet-5-5", HOT, {"max_tokens": 32000}),
        ("claude-mythos-preview", HOT, {"max_tokens": 32000}),
        (
            "claude-sonnet-4-20250514",
            AgentSettings(reasoning="low", temperature=1),
            {"max_tokens": 10240, "thinking": {"type": "enabled", "budget_tokens": 2048}},
        ),
        (
            "claude-haiku-4-5-20251001",
            AgentSettings(reasoning="high", max_tokens=100),
            {"max_tokens": 16484, "thinking": {"type": "enabled", "budget_tokens": 16384}},
        ),
        (
            "claude-opus-4-6",
            AgentSettings(reasoning="medium", max_tokens=100),
            {
                "max_tokens": 100,
                "thinking": {"type": "adaptive", "display": "summarized"},
                "output_config": {"effort": "medium"},
            },
        ),
        ("claude-opus-4-6", AgentSettings(reasoning="none"), {"max_tokens": 32000}),
        ("claude-opus-5", AgentSettings(reasoning="none"), {"max_tokens": 32000, "output_config": {"effort": "low"}}),
    ],
)
def test_anthropic_sampling(model: str, settings: AgentSettings, expected: dict[str, Any]) -> None:
    """Each generation of Claude gets thinking in its own form, and no setting that it refuses."""
    body = anthropic_request.build_body(request(model, settings))
    assert {name: body[name] for name in body if name not in ("model", "stream", "messages")} == expected


@pytest.mark.parametrize(
    ("model", "settings", "expected"),
    [
        ("gpt-4.1", HOT, {"temperature": 0.7, "top_p": 0.9}),
        ("gpt-5-chat-latest", AgentSettings(temperature=0.7), {"temperature": 0.7}),
        ("gpt-5", HOT, {"include": ["reasoning.encrypted_content"]}),
        (
            "gpt-5-mini",
            AgentSettings(reasoning="none"),
            {"include": ["reasoning.encrypted_content"], "reasoning": {"effort": "minimal"}},
        ),
        (
            "gpt-5.1",
            AgentSettings(reasoning="none"),
            {"include": ["reasoning.encrypted_content"], "reasoning": {"effort": "none"}},
        ),
        (
            "o4-mini",
            AgentSettings(reasoning="none"),
            {"include": ["reasoning.encrypted_content"], "reasoning": {"effort": "low"}},
        ),
        ("gpt-4.1", AgentSettings(reasoning="none", max_tokens=99), {"max_output_tokens": 99}),
    ],
)
def test_openai_sampling(model: str, settings: AgentSettings, expected: dict[str, Any]) -> None:
    """Reasoning models get no temperature, the others no reasoning options."""
    body = openai_request.build_body(request(model, settings))
    assert {name: body[name] for name in body if name not in ("model", "stream", "store", "input")} == expected


def test_openai_reasoning_of_earlier_turns() -> None:
    """Encrypted reasoning goes back within its own turn only: a later one may have another model."""
    data = [{"opaque": {"type": "reasoning", "id": "rs_1", "encrypted_content": "e"}}, {"text": 3}]
    answer = HistoryMessage(role="assistant", content="yes", provider="openai", provider_data=data)
    question = HistoryMessage(role="user", content="?")
    base = request("gpt-5", AgentSettings())
    for messages, count in (([question, answer], 1), ([question, answer, question], 0)):
        turn = ModelRequest(model=base.model, instructions="", messages=messages, tools=[], settings=base.settings)
        items = openai_request.build_body(turn)["input"]
        assert sum(item.get("type") == "reasoning" for item in items) == count
