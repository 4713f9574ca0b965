"""The provider that needs no key: it answers `Echo from agent: <last user message>`, word by word.

The model's name takes options after a question mark, as in `echo?delayMs=50&repeat=20&tool=current_time`:

- `delayMs`: the pause before each word, in milliseconds (0 to 60000; default 0).
- `repeat`: how many times the answer's text is given (1 to 10000; default 1).
- `tool`: calls this tool first, and answers once the result is there, with the result below the echo. Named several
  times, the calls are made in parallel. `args` holds the arguments as URL-encoded JSON (default `{}`), one per tool.
- `fail`: ends in this kind of ProviderError (such as `rate_limited` or `server`), at once or after `cutAfter` words.
- `cutAfter`: breaks off after so many words; without `fail`, as a lost connection would (`truncated`).

An unknown or malformed option is refused: ProviderError of the kind `rejected`, which says what is wrong.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Iterator
from typing import Annotated
from urllib.parse import parse_qs

import msgspec

from common.model.messages import Usage
from worker.providers.base import (
    ErrorKind,
    Finish,
    HistoryMessage,
    ModelRequest,
    ProviderError,
    ProviderEvent,
    TextDelta,
    ToolCallDelta,
    UsageReport,
)

_RESULT_SHOWN = 500
_SINGLE = ("delayMs", "repeat", "fail", "cutAfter")


class EchoOptions(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """What the model's name asks for."""

    delay_ms: Annotated[int, msgspec.Meta(ge=0, le=60_000)] = 0
    repeat: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 1
    tool: list[str] = []
    args: list[str] = []
    fail: ErrorKind | None = None
    cut_after: Annotated[int, msgspec.Meta(ge=0)] | None = None


class EchoProvider:
    """Answers without a model. Its usage counts words."""

    name = "echo"

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ProviderEvent, None]:
        """Answers, or calls the tools that the model's name asks for."""
        options = read_options(request.model)
        since_question = _since_last_question(request.messages)
        if options.tool and not any(message.role == "tool" for message in since_question):
            for call in _calls(options):
                yield call
            yield UsageReport(Usage(input_tokens=_count_words(request), output_tokens=len(options.tool)))
            yield Finish("tool_calls")
            return
        answer = " ".join([_answer(request.messages, since_question)] * options.repeat)
        limit = request.settings.max_tokens
        cut_after = 0 if options.fail and options.cut_after is None else options.cut_after
        count = 0
        for word in _words(answer):
            if count in (cut_after, limit):
                break
            await asyncio.sleep(options.delay_ms / 1000)
            yield TextDelta(word)
            count += 1
        _fail_if_asked(options)
        yield UsageReport(Usage(input_tokens=_count_words(request), output_tokens=count))
        yield Finish("length" if count == limit else "stop")

    async def close(self) -> None:
        """Holds nothing."""


def read_options(model: str) -> EchoOptions:
    """The options in a model's name. Raises ProviderError (`rejected`)."""
    _, _, query = model.partition("?")
    try:
        values = parse_qs(query, keep_blank_values=True, strict_parsing=bool(query))
        options = msgspec.convert(
            {name: given[-1] if name in _SINGLE else given for name, given in values.items()},
            EchoOptions,
            strict=False,
        )
        for arguments in options.args:
            msgspec.json.decode(arguments, type=dict)
    except ValueError as error:
        raise ProviderError("rejected", f"the options of the model echo cannot be read: {error}") from None
    if len(options.args) > len(options.tool):
        raise ProviderError("rejected", "the options of the model echo name more args than tools")
    return options


def _since_last_question(history: list[HistoryMessage]) -> list[HistoryMessage]:
    last = max((at for at, message in enumerate(history) if message.role == "user"), default=-1)
    return history[last + 1 :]


def _calls(options: EchoOptions) -> Iterator[ToolCallDelta]:
    for index, name in enumerate(options.tool):
        arguments = options.args[index] if index < len(options.args) else "{}"
        yield ToolCallDelta(index, f"echo_{index}", name, "")
        yield ToolCallDelta(index, None, None, arguments)


def _answer(history: list[HistoryMessage], since_question: list[HistoryMessage]) -> str:
    question = next((message.content for message in reversed(history) if message.role == "user"), "")
    names = {call.id: call.name for message in since_question for call in message.tool_calls}
    results = [
        f"\n{names.get(message.tool_call_id or '', 'tool')}: {message.content[:_RESULT_SHOWN]}"
        for message in since_question
        if message.role == "tool"
    ]
    return f"Echo from agent: {question}{''.join(results)}"


def _words(text: str) -> list[str]:
    """The text in pieces of one word each, with the white space before it; nothing is lost."""
    return re.findall(r"\s*\S+|\s+$", text)


def _fail_if_asked(options: EchoOptions) -> None:
    if options.fail is not None:
        raise ProviderError(options.fail, f"echo was asked to fail: {options.fail}")
    if options.cut_after is not None:
        raise ProviderError("truncated", f"echo was asked to break off after {options.cut_after} words")


def _count_words(request: ModelRequest) -> int:
    texts = [request.instructions, *(message.content for message in request.messages)]
    return sum(len(text.split()) for text in texts)
