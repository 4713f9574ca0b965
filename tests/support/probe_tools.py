"""Tools for tests of whole runs: what each was called with goes to a file, so that effects can be counted."""

import asyncio
import os
import time
from pathlib import Path

from common.model.run_state import Effect
from worker.tools.base import ToolContext, ToolError, tool

EFFECTS_VARIABLE = "PROBE_EFFECTS"
SECONDS_VARIABLE = "PROBE_SECONDS"


def _note(line: str) -> None:
    with Path(os.environ[EFFECTS_VARIABLE]).open("a") as effects:
        effects.write(line + "\n")


@tool(effect=Effect.READ)
async def shout(word: str) -> str:
    """Says a word louder."""
    return word.upper()


@tool(effect=Effect.READ)
async def fail(reason: str) -> str:
    """Fails on purpose."""
    raise ToolError(reason)


@tool(effect=Effect.AT_MOST_ONCE)
async def pay(amount: int, context: ToolContext) -> str:
    """Pays, which must not happen twice; it takes half a minute."""
    _note(f"pay {amount} {context.idempotency_key}")
    await asyncio.sleep(30)
    return "paid"


@tool(effect=Effect.AT_MOST_ONCE)
async def charge(what: str, context: ToolContext) -> str:
    """Charges, which must not happen twice."""
    return await _affect("charge", what, context)


@tool(effect=Effect.IDEMPOTENT)
async def store(what: str, context: ToolContext) -> str:
    """Stores under its key, as often as it is asked to."""
    return await _affect("store", what, context)


@tool(effect=Effect.READ)
async def look(what: str, context: ToolContext) -> str:
    """Looks, which changes nothing."""
    return await _affect("look", what, context)


async def _affect(name: str, what: str, context: ToolContext) -> str:
    """The effect lies in the middle of its time (PROBE_SECONDS, by default none), so that a kill meets both halves."""
    pause_s = float(os.environ.get(SECONDS_VARIABLE, "0")) / 2
    await asyncio.sleep(pause_s)
    _note(f"{name} {what} {context.idempotency_key} {context.tool_call_id}")
    await asyncio.sleep(pause_s)
    return f"{name} {what}"


@tool(effect=Effect.READ)
async def die(what: str, context: ToolContext) -> str:
    """Takes its worker with it."""
    _note(f"die {what} {context.idempotency_key} {context.tool_call_id}")
    os.kill(os.getpid(), 9)
    return "unreachable"


@tool(effect=Effect.READ)
async def freeze(what: str, context: ToolContext) -> str:
    """Blocks the event loop, as no tool should."""
    _note(f"freeze {what} {context.idempotency_key} {context.tool_call_id}")
    time.sleep(30)
    return "thawed"


@tool(effect=Effect.READ)
async def doze(what: str, context: ToolContext) -> str:
    """Sleeps in a thread, which nobody can cancel."""
    _note(f"doze {what} {context.idempotency_key} {context.tool_call_id}")
    await asyncio.to_thread(time.sleep, 60)
    return "awake"
