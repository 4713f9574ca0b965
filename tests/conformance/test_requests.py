"""What every provider makes of a history: the request's body, word for word."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from common.config import CompatibleProvider, Settings
from common.model.messages import AgentSettings
from tests.conformance.conftest import KEY, ask, collect
from tests.support.fake_model_server import FakeModelServer
from worker.providers.base import Finish, HistoryMessage, HistoryToolCall, Provider, ToolSpec
from worker.providers.registry import build_providers

GOLDENS = Path(__file__).parent / "goldens"
TIME = ToolSpec(name="current_time", description="The time.", parameters={"type": "object", "properties": {}})
ADD = ToolSpec(
    name="add",
    description="Adds.",
    parameters={"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
)
THINKING = [
    {"opaque": {"type": "thinking", "thinking": "hm", "signature": "c2ln"}},
    {"opaque": {"type": "redacted_thinking", "data": "ZGF0YQ=="}},
    {"text": 8},
    {"call": 0},
    {"call": 1},
]
REASONING = [
    {"opaque": {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "ZW5j"}},
    {"text": 8},
    {"call": 0},
    {"call": 1},
]


def full_history(provider: str) -> list[HistoryMessage]:
    """Everything that a conversation may hold: both ways of system messages, an empty answer, parallel calls."""
    data = {"anthropic": THINKING, "openai": REASONING}.get(provider)
    calls = [
        HistoryToolCall(id="call_1", name="add", arguments={"a": 1}),
        HistoryToolCall(id="call_2", name="current_time", arguments={}),
    ]
    return [
        HistoryMessage(role="system", content="Speak English."),
        HistoryMessage(role="user", content="hello"),
        HistoryMessage(role="assistant", content="", provider=provider),
        HistoryMessage(role="user", content="are you there?"),
        HistoryMessage(role="assistant", content="Yes.", reasoning="not sent", provider="another", provider_data=data),
        HistoryMessage(role="system", content="Be kind."),
        HistoryMessage(role="user", content="add and tell the time"),
        HistoryMessage(role="assistant", content="I try it", tool_calls=calls, provider=provider, provider_data=data),
        HistoryMessage(role="tool", content="2", tool_call_id="call_1"),
        HistoryMessage(role="tool", content="no clock", tool_call_id="call_2", is_error=True),
    ]


@pytest.mark.parametrize(
    ("case", "settings", "tools"),
    [
        ("tools", AgentSettings(temperature=0.5, top_p=0.9, max_tokens=1000), [ADD, TIME]),
        ("reasoning", AgentSettings(temperature=0.5, max_tokens=1000, reasoning="medium"), [ADD, TIME]),
        ("no_reasoning", AgentSettings(reasoning="none"), []),
    ],
)
async def test_body_of_request(
    provider: Provider, server: FakeModelServer, case: str, settings: AgentSettings, tools: list[ToolSpec]
) -> None:
    """The body is the golden one, and the service's rules accept it."""
    request = ask(provider, *full_history(provider.name), settings=settings, tools=tools)
    assert (await collect(provider, request))[-1] == Finish("stop")
    golden = msgspec.json.decode((GOLDENS / f"{provider.name}.json").read_bytes())
    assert server.requests[-1].body == golden[case]


async def test_request_is_authorised(provider: Provider, server: FakeModelServer) -> None:
    """The key goes into the header that all services read, and nowhere else."""
    await collect(provider, ask(provider))
    request = server.requests[-1]
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert KEY not in str(request.body)
    paths = {"anthropic": "/v1/messages", "openai": "/v1/responses"}
    assert request.path == paths.get(provider.name, "/v1/chat/completions")


async def test_request_to_keyless_endpoint(server: FakeModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """An endpoint without a key gets none, and nothing that the environment holds for OpenAI."""
    for variable in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(variable, KEY)
    endpoint = CompatibleProvider(name="local", base_url=f"{server.url}/v1")
    provider = build_providers(Settings(compatible_providers=(endpoint,)), {})["local"]
    assert (await collect(provider, ask(provider)))[-1] == Finish("stop")
    await provider.close()
    request = server.requests[-1]
    assert "authorization" not in request.headers
    assert KEY not in str(request.headers)


async def test_thoughts_without_answer(provider: Provider, server: FakeModelServer) -> None:
    """Thoughts at a message's end, as a length stop leaves them, are not sent back: they would be refused."""
    thought = {"opaque": {"type": "reasoning" if provider.name == "openai" else "thinking", "id": "lost thought"}}
    for content, data in (("", [thought]), ("Yes", [thought, {"text": 3}, thought])):
        answer = HistoryMessage(role="assistant", content=content, provider=provider.name, provider_data=data)
        history = [HistoryMessage(role="user", content="a"), answer]
        assert (await collect(provider, ask(provider, *history)))[-1] == Finish("stop")
        assert str(server.requests[-1].body).count("lost thought") <= len(content) // 3


async def test_history_with_calls_but_no_tools_left(provider: Provider, server: FakeModelServer) -> None:
    """An agent that has lost its tools can still go on with a conversation in which they were used."""
    events = await collect(provider, ask(provider, *full_history(provider.name), tools=[]))
    assert events[-1] == Finish("stop")


async def test_provider_data_that_does_not_fit(provider: Provider, server: FakeModelServer) -> None:
    """Data of another form, or of a text that was edited since, is left out, and the history stays valid."""
    for data in ({"some": "thing"}, [{"text": 99}, {"opaque": {"type": "thinking"}}], "x", [{"call": 4}]):
        answer = HistoryMessage(role="assistant", content="edited", provider=provider.name, provider_data=data)
        history = [HistoryMessage(role="user", content="a"), answer, HistoryMessage(role="user", content="b")]
        assert (await collect(provider, ask(provider, *history)))[-1] == Finish("stop")
        assert "edited" in str(server.requests[-1].body)
        assert "thing" not in str(server.requests[-1].body["messages" if provider.name != "openai" else "input"])


@pytest.mark.parametrize(
    "contents",
    [
        [("user", " \n")],
        [("system", "only this")],
        [("assistant", "I begin.")],
        [("user", "a"), ("assistant", "  "), ("user", "b"), ("user", "c")],
    ],
)
async def test_unusual_history(provider: Provider, server: FakeModelServer, contents: list[Any]) -> None:
    """Histories that a service would refuse as they are (blank, one-sided, repeated roles) are made acceptable."""
    history = [HistoryMessage(role=role, content=content) for role, content in contents]
    assert (await collect(provider, ask(provider, *history)))[-1] == Finish("stop")
