"""The tools that the recorded answers call (tests/conformance/recordings), beside the built-in `current_time`."""

import os
from pathlib import Path

from common.model.run_state import Effect
from tests.support.probe_tools import EFFECTS_VARIABLE
from worker.tools.base import ToolContext, tool


def _note(line: str) -> None:
    with Path(os.environ[EFFECTS_VARIABLE]).open("a") as effects:
        effects.write(line + "\n")


@tool(effect=Effect.AT_MOST_ONCE)
async def get_weather(city: str, context: ToolContext, unit: str = "celsius") -> str:
    """Notes that it was asked, and for what."""
    _note(f"get_weather {city}:{unit} {context.idempotency_key} {context.tool_call_id}")
    return "sunny"


@tool(effect=Effect.AT_MOST_ONCE)
async def add(a: int, context: ToolContext) -> str:
    """Notes that it was asked, and for what."""
    _note(f"add {a} {context.idempotency_key} {context.tool_call_id}")
    return str(a)
