"""The body of a request to Anthropic's Messages API, out of the history. Pure."""

import re
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from common.model.messages import AgentSettings
from worker.providers.base import HistoryMessage, ModelRequest, ToolSpec
from worker.providers.replay import read_replay

_BUDGETS = {"low": 2048, "medium": 8192, "high": 16384}
_ANSWER_BESIDE_BUDGET = 8192
_MAX_TOKENS, _MAX_TOKENS_BEFORE_4 = 32_000, 8192
"""The API demands a bound: the largest that every model of the generation takes."""

_VERSION = re.compile(r"claude-(?:[a-z]+-)?(\d{1,2})(?!\d)(?:-(\d{1,2})(?!\d))?")
_NEWEST = (99, 0)
_BLANK = "(empty message)"
_CACHE = {"type": "ephemeral"}

Block = dict[str, Any]


def build_body(request: ModelRequest) -> dict[str, Any]:
    """The JSON body. The prompt cache is marked after the tools, the system prompt and the last message."""
    leading, rest = _split_leading_system(request.messages)
    system = "\n\n".join(text for text in (request.instructions, *leading) if text.strip())
    body: dict[str, Any] = {
        "model": request.model,
        "stream": True,
        "messages": _messages(rest),
        **_sampling(request.settings, request.model),
    }
    if system:
        body["system"] = [{"type": "text", "text": system, "cache_control": _CACHE}]
    if tools := request.tools or _tools_of_history(rest):
        body["tools"] = [_tool(tool) for tool in tools]
        body["tools"][-1]["cache_control"] = _CACHE
        if not request.tools:
            body["tool_choice"] = {"type": "none"}
    return body


def takes_sampling(model: str) -> bool:
    """Whether the model still knows temperature and top_p; the API knows them up to its version 2023-06-01."""
    return _version(model) < (4, 7)


def _version(model: str) -> tuple[int, int]:
    """`claude-opus-4-6` is (4, 6); a name without a version is taken for the newest, as previews are."""
    found = _VERSION.search(model)
    return (int(found[1]), int(found[2] or 0)) if found else _NEWEST


def _sampling(settings: AgentSettings, model: str) -> dict[str, Any]:
    """Each model gets what it takes; settings that it would refuse are left out."""
    version = _version(model)
    sampling: dict[str, Any] = {"max_tokens": _MAX_TOKENS if version >= (4, 0) else _MAX_TOKENS_BEFORE_4}
    if settings.max_tokens is not None:
        sampling["max_tokens"] = settings.max_tokens
    if settings.reasoning in _BUDGETS:
        # With thinking, sampling is fixed.
        return sampling | _thinking(settings.reasoning, version, settings.max_tokens)
    if settings.reasoning == "none" and version >= (5, 0):
        # These think unless told otherwise, and some cannot be told: least effort is what all understand.
        return sampling | {"output_config": {"effort": "low"}}
    if takes_sampling(model):
        # Newer ones of these refuse the two together.
        if settings.temperature is not None:
            sampling["temperature"] = settings.temperature
        elif settings.top_p is not None:
            sampling["top_p"] = settings.top_p
    return sampling


def _thinking(level: str, version: tuple[int, int], max_tokens: int | None) -> dict[str, Any]:
    if version >= (4, 6):
        # Budgets are gone there. Unless asked for, the summary is left out by the newest.
        return {"thinking": {"type": "adaptive", "display": "summarized"}, "output_config": {"effort": level}}
    budget = _BUDGETS[level]
    return {
        "thinking": {"type": "enabled", "budget_tokens": budget},
        # The budget is part of max_tokens; what the agent asked for stays free for the answer.
        "max_tokens": budget + (max_tokens or _ANSWER_BESIDE_BUDGET),
    }


def _split_leading_system(messages: list[HistoryMessage]) -> tuple[list[str], list[HistoryMessage]]:
    """System messages before the first other one belong to the system prompt."""
    first = next((at for at, message in enumerate(messages) if message.role != "system"), len(messages))
    return [message.content for message in messages[:first]], messages[first:]


def _messages(history: list[HistoryMessage]) -> list[dict[str, Any]]:
    """Alternating roles: neighbours of one role become one message, so parallel results share theirs."""
    sided = [(_side(message), _blocks(message)) for message in history]
    messages = [
        {"role": role, "content": [block for _, blocks in group for block in blocks]}
        for role, group in groupby(((role, blocks) for role, blocks in sided if blocks), key=lambda pair: pair[0])
    ]
    if not messages or messages[0]["role"] == "assistant":
        messages.insert(0, {"role": "user", "content": [_text(_BLANK)]})
    last = messages[-1]["content"][-1]
    if last["type"] in ("text", "tool_result", "tool_use"):
        last["cache_control"] = _CACHE
    return messages


def _side(message: HistoryMessage) -> str:
    return "assistant" if message.role == "assistant" else "user"


def _blocks(message: HistoryMessage) -> list[Block]:
    match message.role:
        case "assistant":
            return list(_answer(message))
        case "tool":
            return [_tool_result(message)]
        case "system":
            # In its place rather than in the system prompt: it speaks from here on, and the cache stays good.
            return [_text(f"<system>\n{message.content}\n</system>")]
        case _:
            return [_text(message.content if message.content.strip() else _BLANK)]


def _answer(message: HistoryMessage) -> Iterator[Block]:
    """Text and calls, and between them, in their places, the signed thinking that Anthropic gave with them."""
    data = message.provider_data if message.provider == "anthropic" else None
    pieces = read_replay(data, message.content, len(message.tool_calls))
    if pieces is None:
        if message.content.strip():
            yield _text(message.content)
        for call in message.tool_calls:
            yield {"type": "tool_use", "id": call.id, "name": call.name, "input": call.arguments}
        return
    position = 0
    for piece in pieces:
        if piece.opaque is not None:
            yield piece.opaque
        elif piece.call is not None:
            call = message.tool_calls[piece.call]
            yield {"type": "tool_use", "id": call.id, "name": call.name, "input": call.arguments}
        elif piece.text is not None:
            text = message.content[position : position + piece.text]
            position += piece.text
            if text.strip():
                yield _text(text)


def _tool_result(message: HistoryMessage) -> Block:
    block: Block = {"type": "tool_result", "tool_use_id": message.tool_call_id}
    if message.content:
        block["content"] = message.content
    if message.is_error:
        block["is_error"] = True
    return block


def _text(text: str) -> Block:
    return {"type": "text", "text": text}


def _tool(tool: ToolSpec) -> dict[str, Any]:
    return {
        "name": tool.name,
        "description": tool.description,
        "input_schema": tool.parameters,
        # Otherwise each argument is held back until it is whole: minutes of silence for a long document.
        "eager_input_streaming": True,
    }


def _tools_of_history(history: list[HistoryMessage]) -> list[ToolSpec]:
    """Tools to declare where the agent has none any more: a history with calls is refused without them."""
    names = {call.name: None for message in history for call in message.tool_calls}
    return [ToolSpec(name=name, description="No longer available.", parameters={"type": "object"}) for name in names]
