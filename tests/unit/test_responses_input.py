"""What a request of OpenAI's Responses is taken for."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.commands.responses_input import Said, chosen_settings, read_input
from common.errors import ErrorCode, ThroughlineError
from common.model.messages import AgentSettings
from common.model.responses import NewResponse, ReasoningWish

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
_WORDS = st.sampled_from(["user", "assistant", "developer", "message", "input_text", "output_text", "input_image", "x"])
_PART = st.fixed_dictionaries({}, optional={"type": _WORDS | _JSON, "text": st.text(max_size=3) | _JSON})
_ITEM = st.fixed_dictionaries(
    {},
    optional={
        "type": st.just("message") | _JSON,
        "role": _WORDS | _JSON,
        "content": st.text(max_size=3) | st.lists(_PART, max_size=2) | _JSON,
        "id": _JSON,
    },
)
_FREE = [field.name for field in msgspec.structs.fields(NewResponse) if field.type is Any]


def outcome(new: NewResponse) -> list[Said] | ThroughlineError:
    """The messages, or the refusal."""
    try:
        return read_input(new)
    except ThroughlineError as refusal:
        return refusal


@given(st.lists(_ITEM | st.dictionaries(st.text(max_size=5), _JSON, max_size=3), max_size=3))
def test_any_list_of_items_is_read_or_refused_by_name(items: list[dict[str, Any]]) -> None:
    """Whatever the items are: messages with text of which the last is the user's, or a refusal that names one."""
    said = outcome(NewResponse(input=items))
    if isinstance(said, ThroughlineError):
        assert said.code is ErrorCode.INVALID_REQUEST
        assert said.message.startswith("input")
    else:
        assert len(said) == len(items)
        assert said[-1].role == "user"
        assert all(message.text for message in said)


@given(st.sampled_from(_FREE), _JSON)
def test_any_value_of_what_cannot_be_chosen_is_neutral_or_refused(name: str, value: Any) -> None:
    """A field that nothing is done with is refused by its name, unless it asks for nothing."""
    said = outcome(msgspec.structs.replace(NewResponse(input="x"), **{name: value}))
    if isinstance(said, ThroughlineError):
        assert value is not None
        assert said.message.startswith(f"{name}: ")
    else:
        assert said == [Said("user", "x")]
        assert value in (None, True, "auto", "default", "disabled", 0, [], {}) or isinstance(value, dict)


@pytest.mark.parametrize(("name", "value"), [("top_logprobs", False), ("store", 1), ("parallel_tool_calls", 1.0)])
def test_neutral_value_of_another_type_is_refused(name: str, value: Any) -> None:
    """1 is not true, though Python thinks so."""
    with pytest.raises(ThroughlineError, match=f"^{name}: "):
        read_input(msgspec.structs.replace(NewResponse(input="x"), **{name: value}))


def test_settings_of_the_request_win_one_by_one() -> None:
    """What a request leaves open stays the agent's."""
    agent = AgentSettings(temperature=1.0, top_p=0.5, max_tokens=7, reasoning="high")
    assert chosen_settings(NewResponse(input="x"), agent) == agent
    assert chosen_settings(NewResponse(input="x", reasoning=ReasoningWish()), agent) == agent
    assert chosen_settings(
        NewResponse(input="x", temperature=0.0, max_output_tokens=9, reasoning=ReasoningWish(effort="none")), agent
    ) == AgentSettings(temperature=0.0, top_p=0.5, max_tokens=9, reasoning="none")
