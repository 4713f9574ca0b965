"""Every provider against the fake model server."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from common.config import CompatibleProvider, Settings
from common.model.messages import AgentSettings
from tests.support.fake_model_server import FakeModelServer
from worker.providers.base import HistoryMessage, ModelRequest, Provider, ProviderEvent
from worker.providers.registry import build_providers

MODELS = {
    "anthropic": "claude-sonnet-4-20250514",
    "openai": "gpt-5",
    "openrouter": "anthropic/claude-sonnet-4",
    "zai": "glm-4.6",
    "local": "llama",
}
KEY = "sk-canary-0123456789"


@pytest.fixture
async def server() -> AsyncIterator[FakeModelServer]:
    async with FakeModelServer() as server:
        yield server


@pytest.fixture(params=MODELS)
async def provider(request: pytest.FixtureRequest, server: FakeModelServer) -> AsyncIterator[Provider]:
    """Each provider that speaks HTTP, with the server as its base URL."""
    provider = build_provider(request.param, server.url)
    yield provider
    await provider.close()


def build_provider(name: str, url: str) -> Provider:
    """The provider as the worker builds it; only the one asked for has a key."""
    endpoint = CompatibleProvider(name="local", base_url=f"{url}/v1", api_key_env="LOCAL_KEY")
    addresses: dict[str, Any] = {
        "anthropic_base_url": url,
        "openai_base_url": f"{url}/v1",
        "openrouter_base_url": f"{url}/v1",
        "zai_base_url": f"{url}/v1",
        "compatible_providers": (endpoint,),
    }
    key: dict[str, Any] = {} if name == "local" else {f"{name}_api_key": KEY}
    environment = {"LOCAL_KEY": KEY} if name == "local" else {}
    return build_providers(Settings(**addresses, **key), environment)[name]


def ask(provider: Provider, *history: HistoryMessage, **changes: Any) -> ModelRequest:
    """A request to `provider`; by default one user message and no settings."""
    values: dict[str, Any] = {
        "model": MODELS[provider.name],
        "instructions": "Be brief.",
        "messages": list(history) or [HistoryMessage(role="user", content="hello")],
        "tools": [],
        "settings": AgentSettings(),
    }
    return ModelRequest(**values | changes)


async def collect(provider: Provider, request: ModelRequest) -> list[ProviderEvent]:
    """All events of one answer."""
    return [event async for event in provider.stream(request)]
