"""Stored messages as the AI SDK's: all that a run has said is one message under the run's id."""

from collections.abc import Iterable, Sequence
from typing import Literal
from uuid import UUID

from api.protocols.ai_sdk import UNANSWERED
from common.model.messages import Message
from common.model.ui_messages import DynamicToolPart, ReasoningPart, StepStartPart, TextPart, UIMessage, UIPart


def ui_messages(
    messages: Iterable[tuple[int, Message]], partial_texts: Sequence[tuple[int, UUID, str]]
) -> list[UIMessage]:
    """`messages` with their turns, in order; `partial_texts`, as (turn, run, text), go to the ends of their turns."""
    shown: list[UIMessage] = []
    answers: dict[UUID, UIMessage] = {}
    calls: dict[str, DynamicToolPart] = {}
    left = list(partial_texts)
    for turn, message in messages:
        while left and left[0][0] < turn:
            _add_partial(shown, answers, *left.pop(0)[1:])
        if message.run_id is None:
            shown.append(_posted(message))
        elif message.role == "tool":
            _add_result(calls, message)
        else:
            _answer(shown, answers, message.run_id).parts += _step(message, calls)
    for _, run_id, text in left:
        _add_partial(shown, answers, run_id, text)
    return shown


def _posted(message: Message) -> UIMessage:
    text = message.content if message.edited_content is None else message.edited_content
    role: Literal["user", "assistant", "system"] = "user" if message.role == "tool" else message.role
    return UIMessage(id=str(message.id), role=role, parts=[TextPart(text=text)])


def _answer(shown: list[UIMessage], answers: dict[UUID, UIMessage], run_id: UUID) -> UIMessage:
    if run_id not in answers:
        answers[run_id] = UIMessage(id=str(run_id), role="assistant", parts=[])
        shown.append(answers[run_id])
    return answers[run_id]


def _step(message: Message, calls: dict[str, DynamicToolPart]) -> list[UIPart]:
    parts: list[UIPart] = [StepStartPart()]
    if message.reasoning:
        parts.append(ReasoningPart(text=message.reasoning))
    text = message.content if message.edited_content is None else message.edited_content
    if text:
        parts.append(TextPart(text=text))
    for call in message.tool_calls or ():
        part = calls[call.tool_call_id] = DynamicToolPart(
            tool_name=call.name,
            tool_call_id=call.tool_call_id,
            state="output-error",
            input=call.arguments,
            error_text=UNANSWERED,
            provider_executed=True,
        )
        parts.append(part)
    return parts


def _add_result(calls: dict[str, DynamicToolPart], result: Message) -> None:
    part = calls.get(result.tool_call_id or "")
    if part is None:
        return
    if result.is_error:
        part.error_text = result.content
    else:
        part.state, part.output, part.error_text = "output-available", result.content, None


def _add_partial(shown: list[UIMessage], answers: dict[UUID, UIMessage], run_id: UUID, text: str) -> None:
    _answer(shown, answers, run_id).parts += [StepStartPart(), TextPart(text=text)]
