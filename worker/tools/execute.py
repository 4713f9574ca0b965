"""Runs one call of a tool. Whatever the tool does, the model gets an answer and the worker lives."""

import asyncio
from typing import Any, NamedTuple

import structlog

from common.model.run_state import Effect, Outcome
from worker.tools.base import InvalidArguments, Tool, ToolContext, ToolError
from worker.tools.environment import redact

STORED_LIMIT_BYTES = 5_000_000
"""What of a result is kept in the conversation."""

MODEL_LIMIT_BYTES = 256 * 1024
"""What of a result is shown to the model."""

_CANCEL_GRACE_S = 1.0
_ERROR_LIMIT_BYTES = 4_000

_log = structlog.get_logger(__name__)


class ToolOutcome(NamedTuple):
    """The answer to the model. `outcome` is OK or ERROR, and `is_error` says the same."""

    content: str
    is_error: bool
    outcome: Outcome


async def execute(
    tool: Tool,
    arguments: dict[str, Any],
    context: ToolContext,
    *,
    timeout_s: float,
    output_limit_bytes: int = STORED_LIMIT_BYTES,
) -> ToolOutcome:
    """Validates and runs the call within the tool's own time limit, else `timeout_s`.

    Never raises, except CancelledError when the caller is cancelled; the tool is cancelled with it. A tool
    that does not end within a second of its cancellation is left behind.
    """
    limit_s = timeout_s if tool.timeout_s is None else tool.timeout_s
    running = asyncio.create_task(_answer(tool, arguments, context), name=f"tool {tool.name}")
    try:
        await asyncio.wait({running}, timeout=limit_s)
        if running.done():
            content, is_error = running.result()
        else:
            content, is_error = _timed_out(tool, limit_s), True
    finally:
        await _end(running, tool)
    return outcome_of(content, is_error, output_limit_bytes)


def outcome_of(content: str, is_error: bool, limit_bytes: int = STORED_LIMIT_BYTES) -> ToolOutcome:
    """What a tool has said, without our keys and within the limit."""
    content = cut(redact(content), limit_bytes)
    return ToolOutcome(content, is_error, Outcome.ERROR if is_error else Outcome.OK)


def failed(tool: Tool, context: ToolContext, error: BaseException) -> ToolOutcome:
    """The outcome of a call that ended with this exception."""
    return outcome_of(_failure(tool, context, error), is_error=True)


def _failure(tool: Tool, context: ToolContext, error: BaseException) -> str:
    if isinstance(error, (InvalidArguments, ToolError)):
        return cut(_text(error), _ERROR_LIMIT_BYTES)
    _log.warning("tool_failed", tool=tool.name, run_id=str(context.run_id), error=type(error).__name__)
    return cut(_error_text(tool, error), _ERROR_LIMIT_BYTES)


def cut_for_model(content: str) -> str:
    """The part of a stored result that the model is shown, marked where it was cut."""
    return cut(content, MODEL_LIMIT_BYTES)


def cut(content: str, limit_bytes: int) -> str:
    """`content` when its UTF-8 fits `limit_bytes`; else its beginning and a mark, which together fit."""
    if len(content) * 4 <= limit_bytes:
        return content
    data = content[: limit_bytes + 1].encode(errors="replace")
    if len(content) <= limit_bytes and len(data) <= limit_bytes:
        return content
    mark = f"\n[cut: the result is longer than {limit_bytes:,} bytes]"
    return data[: max(0, limit_bytes - len(mark))].decode(errors="ignore") + mark


async def _answer(tool: Tool, arguments: dict[str, Any], context: ToolContext) -> tuple[str, bool]:
    """Catches BaseException because SystemExit, once it leaves a task, ends the worker and its other runs."""
    try:
        return await tool.call(tool.validate(arguments), context), False
    except BaseException as error:
        return _failure(tool, context, error), True


async def _end(running: asyncio.Task[tuple[str, bool]], tool: Tool) -> None:
    if running.done():
        return
    running.cancel()
    _, left_behind = await asyncio.wait({running}, timeout=_CANCEL_GRACE_S)
    if left_behind:
        _log.error("tool_ignores_cancellation", tool=tool.name)


def _timed_out(tool: Tool, limit_s: float) -> str:
    return f"{tool.name} was stopped: it took longer than {limit_s:g} s.{_doubt(tool)}"


def _error_text(tool: Tool, error: BaseException) -> str:
    summary = ": ".join(part for part in (type(error).__name__, _text(error)) if part)
    return f"{tool.name} failed: {summary.rstrip('.')}.{_doubt(tool)}"


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as second:
        return f"its message could not be read ({type(second).__name__})"


def _doubt(tool: Tool) -> str:
    return "" if tool.effect in (Effect.READ, Effect.TRANSACTIONAL) else " It may or may not have taken effect."
