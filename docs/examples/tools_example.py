"""Two tools to copy from. Set TOOLS_MODULE=docs.examples.tools_example and start a worker in this folder.

`calculate` is a function without an effect. `add_note` is a class with one: it writes to a file, and does so
once, however often a crash makes the worker repeat the call.
"""

import ast
import asyncio
import fcntl
import json
import operator
import os
from collections.abc import Callable
from decimal import Context, Decimal, DecimalException, localcontext
from pathlib import Path
from typing import Annotated

import msgspec

from common.model.run_state import Effect
from worker.tools.base import ToolContext, ToolError, tool

NOTES = Path(os.environ.get("NOTES_DIR", ".throughline/notes"))

_OPERATORS: dict[type[ast.operator], Callable[[Decimal, Decimal], Decimal]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}


@tool(effect=Effect.READ, timeout_s=5)
async def calculate(expression: Annotated[str, msgspec.Meta(min_length=1, max_length=300)]) -> str:
    """Calculates an arithmetic expression exactly, to 28 digits.

    Args:
        expression: Numbers, parentheses and + - * / % **, such as (1299 * 12) * 1.19. No names, no functions.
    """
    try:
        expression = expression.strip()
        with localcontext(Context(Emax=9_999, Emin=-9_999)):
            result = _evaluate(ast.parse(expression, mode="eval").body, expression)
    except (SyntaxError, ValueError) as error:
        raise ToolError(f"This is no arithmetic expression: {error}") from None
    except DecimalException as error:
        raise ToolError(f"This has no result that fits: {type(error).__name__}") from None
    return f"{result.normalize():f}" if abs(result.adjusted()) < 30 else str(result)


def _evaluate(node: ast.expr, source: str) -> Decimal:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return +Decimal(ast.get_source_segment(source, node) or number)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_evaluate(operand, source)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _evaluate(operand, source)
        case ast.BinOp(left=left, op=sign, right=right) if type(sign) in _OPERATORS:
            return _OPERATORS[type(sign)](_evaluate(left, source), _evaluate(right, source))
    raise ValueError(f"{ast.unparse(node)} is not allowed")


@tool(effect=Effect.IDEMPOTENT)
class add_note(msgspec.Struct):
    """Writes a note into the notebook that everybody in this workspace shares."""

    text: Annotated[str, msgspec.Meta(min_length=1, max_length=10_000, description="The note, in plain text.")]

    async def run(self, context: ToolContext) -> str:
        note = {"key": context.idempotency_key, "user": context.user, "text": self.text}
        number = await asyncio.to_thread(_append, NOTES / f"{context.workspace_id}.jsonl", note)
        return f"Noted, as note {number} of the notebook."


def _append(path: Path, note: dict[str, str]) -> int:
    """The note's number, from 1. A key that is there already adds nothing; other workers wait meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        keys = [json.loads(line)["key"] for line in file]
        if note["key"] in keys:
            return keys.index(note["key"]) + 1
        file.write(json.dumps(note) + "\n")
        file.flush()
        os.fsync(file.fileno())
        return len(keys) + 1
