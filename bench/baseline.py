"""What Throughline is compared with: the least that one would write.

One process, the model SDK behind a streaming response. Nothing is stored; a client that drops has lost its answer.
Run by `uvicorn bench.baseline:app` with ANTHROPIC_BASE_URL and ANTHROPIC_API_KEY set.
"""

import json
from collections.abc import AsyncIterator
from typing import Any

from anthropic import AsyncAnthropic
from litestar import Litestar, get, post
from litestar.response import Stream

client = AsyncAnthropic()


@get("/health/ready")
async def ready() -> str:
    return "ready"


@post("/chat", status_code=200)
async def chat(data: dict[str, str]) -> Stream:
    return Stream(_answer(data["model"], data["content"]), media_type="text/event-stream")


async def _answer(model: str, content: str) -> AsyncIterator[bytes]:
    stream = await client.messages.create(
        model=model, max_tokens=100_000, messages=[{"role": "user", "content": content}], stream=True
    )
    async for event in stream:
        if event.type == "content_block_delta" and event.delta.type == "text_delta":
            yield _frame({"type": "token", "content": event.delta.text})
    yield _frame({"type": "done"})


def _frame(event: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(event, separators=(',', ':'))}\n\n".encode()


app = Litestar([ready, chat], logging_config=None)
