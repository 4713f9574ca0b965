"""A step as a worker commits it, without a model."""

from common.ids import new_id
from common.model.messages import Usage
from common.model.steps import NewStep, StepOutput


def said(index: int, text: str) -> NewStep:
    """Step `index` of a run: nothing but `text`, of a model call that nobody has noted."""
    return NewStep(
        index=index,
        model_call_id=new_id(),
        output=StepOutput(content=text, reasoning=None, tool_calls=[], provider_data=None, usage=Usage()),
        calls=[],
        finish_reason=None,
        first_token_age_s=None,
    )
