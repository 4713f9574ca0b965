"""A provider that says what a test tells it to: one script per request, a script being events, pauses and errors."""

import asyncio
from collections.abc import AsyncGenerator

from common.model.messages import Usage
from worker.providers.base import (
    Finish,
    ModelRequest,
    ProviderError,
    ProviderEvent,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    UsageReport,
)

Line = ProviderEvent | ProviderError | asyncio.Event
Script = list[Line]


class ScriptedProvider:
    """Plays one script per request and keeps the requests; an asyncio.Event in a script is waited for."""

    name = "scripted"

    def __init__(self, *scripts: Script) -> None:
        self.requests: list[ModelRequest] = []
        self.closed_early = 0
        self.waiting = 0
        """How many pauses have been reached."""
        self._scripts = list(scripts)

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ProviderEvent, None]:
        self.requests.append(request)
        script = self._scripts.pop(0)
        finished = False
        try:
            for line in script:
                if isinstance(line, asyncio.Event):
                    self.waiting += 1
                    await line.wait()
                elif isinstance(line, ProviderError):
                    raise line
                else:
                    yield line
            finished = True
        finally:
            if not finished:
                self.closed_early += 1

    async def close(self) -> None:
        """There is nothing to free."""


def says(*words: str, usage: tuple[int, int] = (10, 5)) -> Script:
    """An answer of these pieces, and its tokens in and out."""
    return [*(TextDelta(word) for word in words), UsageReport(_usage(usage)), Finish("stop")]


def thinks(thought: str) -> Script:
    """Reasoning, to be put before an answer."""
    return [ReasoningDelta(thought)]


def calls(*requested: tuple[str, str], text: str = "", usage: tuple[int, int] = (10, 5)) -> Script:
    """A step that calls tools: pairs of a name and the JSON text of the arguments, each sent in two pieces."""
    script: Script = [TextDelta(text)] if text else []
    for index, (name, arguments) in enumerate(requested):
        middle = len(arguments) // 2
        script.append(ToolCallDelta(index, f"call_{index}", name, arguments[:middle]))
        script.append(ToolCallDelta(index, None, None, arguments[middle:]))
    return [*script, UsageReport(_usage(usage)), Finish("tool_calls")]


def _usage(tokens: tuple[int, int]) -> Usage:
    return Usage(input_tokens=tokens[0], output_tokens=tokens[1])
