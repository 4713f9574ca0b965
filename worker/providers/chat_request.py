"""The body of a chat completions request, out of the history. Pure."""

from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from common.model.messages import AgentSettings
from worker.providers.base import HistoryMessage, ModelRequest

Dialect = Literal["plain", "openrouter", "zai"]
"""Where servers differ: how reasoning is asked for, and whether streamed arguments must be."""


def build_body(request: ModelRequest, dialect: Dialect) -> dict[str, Any]:
    """The JSON body."""
    body: dict[str, Any] = {
        "model": request.model,
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": list(_messages(request)),
        **_sampling(request.settings),
        **_reasoning(request.settings, dialect),
    }
    if request.tools:
        body["tools"] = [
            {
                "type": "function",
                "function": {
                    "name": tool.name,
                    "description": tool.description,
                    "parameters": tool.parameters,
                },
            }
            for tool in request.tools
        ]
        if dialect == "zai":
            # Otherwise arguments come in one piece at their end, after a silence as long as their writing took.
            body["tool_stream"] = True
    return body


def _sampling(settings: AgentSettings) -> dict[str, Any]:
    chosen = {
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "max_tokens": settings.max_tokens,
    }
    return {name: value for name, value in chosen.items() if value is not None}


def _reasoning(settings: AgentSettings, dialect: Dialect) -> dict[str, Any]:
    level = settings.reasoning
    if level is None:
        return {}
    match dialect:
        case "openrouter":
            return {"reasoning": {"enabled": False} if level == "none" else {"effort": level}}
        case "zai":
            return {"thinking": {"type": "disabled" if level == "none" else "enabled"}}
        case _:
            # Most servers know only the levels: `none` is what they do by themselves.
            return {} if level == "none" else {"reasoning_effort": level}


def _messages(request: ModelRequest) -> Iterator[dict[str, Any]]:
    if request.instructions.strip():
        yield {"role": "system", "content": request.instructions}
    for message in request.messages:
        match message.role:
            case "assistant":
                if message.content or message.tool_calls:
                    yield _answer(message)
            case "tool":
                yield {"role": "tool", "tool_call_id": message.tool_call_id, "content": message.content}
            case role:
                yield {"role": role, "content": message.content}


def _answer(message: HistoryMessage) -> dict[str, Any]:
    if not message.tool_calls:
        return {"role": "assistant", "content": message.content}
    calls = [
        {
            "id": call.id,
            "type": "function",
            "function": {
                "name": call.name,
                "arguments": msgspec.json.encode(call.arguments).decode(),
            },
        }
        for call in message.tool_calls
    ]
    return {"role": "assistant", "content": message.content or None, "tool_calls": calls}
