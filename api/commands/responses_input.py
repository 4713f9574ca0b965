"""What a request of OpenAI's Responses asks for, in our words. Whatever cannot be honoured is refused by name."""

from typing import Any, Literal, NamedTuple

import msgspec

from api.errors import invalid
from common.model.messages import AgentSettings
from common.model.responses import InputMessage, NewResponse
from common.model.run_state import Priority

_MAX_ITEMS = 500
_TEXT_PARTS = ("input_text", "output_text")

_FLEX = "flex"
_PLAIN_TEXT: dict[str, Any] = {"format": {"type": "text"}}
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "context_management": ([],),
    "include": ([],),
    "max_tool_calls": (),
    "metadata": ({},),
    "moderation": (),
    "parallel_tool_calls": (True,),
    "prompt": (),
    "prompt_cache_key": (),
    "prompt_cache_options": (),
    "prompt_cache_retention": (),
    "safety_identifier": (),
    "service_tier": ("auto", "default", _FLEX),
    "store": (True,),
    "stream_options": ({}, {"include_obfuscation": False}),
    "text": ({}, _PLAIN_TEXT, {**_PLAIN_TEXT, "verbosity": "medium"}, {"verbosity": "medium"}),
    "tool_choice": ("auto",),
    "tools": ([],),
    "top_logprobs": (0,),
    "truncation": ("disabled",),
    "user": (),
}
"""What these fields may say besides null; none of it asks for anything, except flex."""


class Said(NamedTuple):
    """A message of the input."""

    role: Literal["user", "assistant", "system"]
    text: str


def read_input(new: NewResponse) -> list[Said]:
    """The messages; the last is the user's that starts the run. Raises `invalid_request`, naming the field."""
    for name, neutral in _NEUTRAL.items():
        value = getattr(new, name)
        if value is not None and not any(type(value) is type(one) and value == one for one in neutral):
            raise invalid(f"{name}: not supported yet{_hint(name)}; leave it out")
    if new.conversation is not None and new.previous_response_id is not None:
        raise invalid("previous_response_id: `conversation` says already where the response belongs; send one of them")
    if isinstance(new.input, str):
        return [Said("user", _not_empty(new.input, "input"))]
    if not 0 < len(new.input) <= _MAX_ITEMS:
        raise invalid(f"input: 1 to {_MAX_ITEMS} messages")
    messages = [_read_item(item, f"input[{index}]") for index, item in enumerate(new.input)]
    if messages[-1].role != "user":
        raise invalid(f"input[{len(messages) - 1}].role: the last message is the user's, which is answered")
    return messages


def chosen_settings(new: NewResponse, settings: AgentSettings) -> AgentSettings:
    """The agent's settings, with what the request says instead."""
    chosen = {
        "temperature": new.temperature,
        "top_p": new.top_p,
        "max_tokens": new.max_output_tokens,
        "reasoning": new.reasoning and new.reasoning.effort,
    }
    return msgspec.structs.replace(settings, **{name: value for name, value in chosen.items() if value is not None})


def chosen_priority(new: NewResponse) -> Priority:
    """OpenAI's `flex` is for what may take its time."""
    return Priority.BACKGROUND if new.service_tier == _FLEX else Priority.INTERACTIVE


def _hint(name: str) -> str:
    return ": the agent's own tools run here" if name == "tools" else ""


def _read_item(item: dict[str, Any], where: str) -> Said:
    kind = item.get("type", "message")
    if kind != "message":
        raise invalid(
            f"{where}.type: only messages are taken, not {kind!r}; what came before is known by `conversation` or "
            "`previous_response_id`"
        )
    try:
        message = msgspec.convert(item, InputMessage)
    except msgspec.ValidationError as error:
        fault, _, path = str(error).partition(" - at `$")
        raise invalid(f"{where}{path.rstrip('`')}: {fault}") from None
    role: Literal["user", "assistant", "system"] = "system" if message.role == "developer" else message.role
    if isinstance(message.content, str):
        return Said(role, _not_empty(message.content, f"{where}.content"))
    texts = [_read_part(part, f"{where}.content[{index}]") for index, part in enumerate(message.content)]
    return Said(role, _not_empty("\n".join(texts), f"{where}.content"))


def _read_part(part: dict[str, Any], where: str) -> str:
    kind = part.get("type")
    if kind not in _TEXT_PARTS:
        raise invalid(f"{where}.type: only text is taken, not {kind!r}")
    text = part.get("text")
    if not isinstance(text, str):
        raise invalid(f"{where}.text: Expected `str`")
    return text


def _not_empty(text: str, where: str) -> str:
    if not text:
        raise invalid(f"{where}: it is empty")
    return text
