"""The body of a request to OpenAI's Responses API, out of the history. Pure."""

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from common.model.messages import AgentSettings
from worker.providers.base import HistoryMessage, HistoryToolCall, ModelRequest
from worker.providers.replay import read_replay

_REASONS = re.compile(r"(?:o\d|gpt-(?:[5-9]|\d\d))(?!.*-chat)")
_TAKES_MINIMAL = re.compile(r"gpt-5(?:-mini|-nano)?(?:-\d{4}-\d\d-\d\d)?")


def build_body(request: ModelRequest) -> dict[str, Any]:
    """The JSON body. Nothing is stored at OpenAI, so the whole history goes along each time."""
    reasons = _REASONS.match(request.model) is not None
    body: dict[str, Any] = {
        "model": request.model,
        "stream": True,
        "store": False,
        "input": list(_items(request.messages, with_reasoning=reasons)),
        **_sampling(request.settings, request.model, reasons=reasons),
    }
    if request.instructions.strip():
        body["instructions"] = request.instructions
    if request.tools:
        body["tools"] = [
            {
                "type": "function",
                "name": tool.name,
                "description": tool.description,
                "parameters": tool.parameters,
                # Strict would forbid optional arguments, which our schemas have.
                "strict": False,
            }
            for tool in request.tools
        ]
    return body


def _sampling(settings: AgentSettings, model: str, *, reasons: bool) -> dict[str, Any]:
    """Reasoning models refuse temperature and top_p, the others encrypted reasoning: each gets what it takes."""
    sampling: dict[str, Any] = {}
    if settings.max_tokens is not None:
        sampling["max_output_tokens"] = settings.max_tokens
    if reasons:
        sampling["include"] = ["reasoning.encrypted_content"]
    else:
        chosen = {"temperature": settings.temperature, "top_p": settings.top_p}
        sampling |= {name: value for name, value in chosen.items() if value is not None}
    if settings.reasoning in ("low", "medium", "high"):
        # Summaries only on demand: organisations that are not verified may not ask for them.
        sampling["reasoning"] = {"effort": settings.reasoning, "summary": "auto"}
    elif settings.reasoning == "none" and reasons:
        sampling["reasoning"] = {"effort": _least_effort(model)}
    return sampling


def _least_effort(model: str) -> str:
    """No reasoning at all came with gpt-5.1; those before have a least level instead."""
    if model.startswith("o"):
        return "low"
    return "minimal" if _TAKES_MINIMAL.fullmatch(model) else "none"


def _items(history: list[HistoryMessage], *, with_reasoning: bool) -> Iterator[dict[str, Any]]:
    """Reasoning goes back within the present turn only, where it counts, and where the model is the same one."""
    turn = max((at for at, message in enumerate(history) if message.role == "user"), default=-1)
    for at, message in enumerate(history):
        match message.role:
            case "assistant":
                yield from _answer(message, with_reasoning=with_reasoning and at > turn)
            case "tool":
                yield {"type": "function_call_output", "call_id": message.tool_call_id, "output": message.content}
            case role:
                yield {"role": role, "content": message.content}


def _answer(message: HistoryMessage, *, with_reasoning: bool) -> Iterator[dict[str, Any]]:
    data = message.provider_data if with_reasoning and message.provider == "openai" else None
    pieces = read_replay(data, message.content, len(message.tool_calls))
    if pieces is None:
        if message.content:
            yield {"role": "assistant", "content": message.content}
        yield from map(_call, message.tool_calls)
        return
    position = 0
    for piece in pieces:
        if piece.opaque is not None:
            yield piece.opaque
        elif piece.call is not None:
            yield _call(message.tool_calls[piece.call])
        elif piece.text:
            yield {"role": "assistant", "content": message.content[position : position + piece.text]}
            position += piece.text


def _call(call: HistoryToolCall) -> dict[str, Any]:
    arguments = msgspec.json.encode(call.arguments).decode()
    return {"type": "function_call", "call_id": call.id, "name": call.name, "arguments": arguments}
