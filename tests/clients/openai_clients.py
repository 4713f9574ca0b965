"""What the tests of OpenAI's own clients share: a system with a real API and worker, and clients of it."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from openai import AsyncOpenAI, DefaultAsyncHttpxClient

from tests.support.planned_model import plan
from tests.support.system import Client

_PAGE = Path(__file__).parents[2] / "docs" / "clients" / "openai.md"


def openai_url(url: str) -> str:
    """The base URL that OpenAI's clients are given."""
    return f"{url}/openai/v1"


def key_of(client: Client) -> str:
    """A member's token, which stands in for an API key."""
    return client.headers["authorization"].removeprefix("Bearer ")


@asynccontextmanager
async def openai_client(client: Client, url: str | None = None) -> AsyncIterator[AsyncOpenAI]:
    """openai-python as `client`'s member; it repeats nothing by itself."""
    async with AsyncOpenAI(
        base_url=openai_url(url or client.url),
        api_key=key_of(client),
        max_retries=0,
        timeout=30,
        http_client=DefaultAsyncHttpxClient(trust_env=False),
    ) as openai:
        yield openai


def planned(*, steps: int = 0, tools: str = "look", words: int = 10, pause_ms: float = 0) -> str:
    """A planned model of the fake server, as `model` names it."""
    return f"openrouter/{plan(steps=steps, tools=tools, words=words, pause_ms=pause_ms)}"


def programs(language: str) -> list[str]:
    """The programs of the documentation's page."""
    return re.findall(rf"^```{language}\n(.*?)^```$", _PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
