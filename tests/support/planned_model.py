"""A model that follows a plan in its name, whoever asks and however often: `plan?steps=2&tools=charge&words=20`.

The step is known from the history, so that a repeated request is answered alike; only the words name the request, so
that the texts of two answers can never be taken for one.
"""

import itertools
from typing import Any
from urllib.parse import parse_qs

from tests.support.model_script import Call, Reply

PREFIX = "plan?"
_requests = itertools.count(1)


def plan(*, steps: int = 0, tools: str = "look", words: int = 10, pause_ms: float = 0) -> str:
    """The model's name: `steps` answers that call every one of `tools` (comma separated), then a last one without;
    each of so many words, with a pause of so many milliseconds before each frame.
    """
    return f"{PREFIX}steps={steps}&tools={tools}&words={words}&pauseMs={pause_ms}"


def planned_reply(model: str, body: dict[str, Any]) -> Reply:
    """The answer that the plan has for this history."""
    options = {name: values[0] for name, values in parse_qs(model.removeprefix(PREFIX)).items()}
    step = _steps_of_turn(body.get("messages") or body["input"]) + 1
    number = next(_requests)
    text = " ".join(f"{number}.{step}.{word}" for word in range(int(options["words"])))
    names = options["tools"].split(",") if step <= int(options["steps"]) else []
    calls = tuple(Call(name, {"what": f"{number}.{step}.{place}"}) for place, name in enumerate(names))
    return Reply(text=text, calls=calls, pause_s=float(options["pauseMs"]) / 1000)


def _steps_of_turn(history: list[dict[str, Any]]) -> int:
    """How many answers with calls follow the last words of the user."""
    steps = 0
    for item in history:
        if item.get("role") == "user" and not _is_result(item):
            steps = 0
        elif item.get("role") == "assistant":
            steps += 1
    return steps


def _is_result(message: dict[str, Any]) -> bool:
    content = message["content"]
    return isinstance(content, list) and any(block["type"] == "tool_result" for block in content)
