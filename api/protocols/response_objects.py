"""A run as a response: as its stream tells it, and as the database has it."""

from collections.abc import Sequence

from api.protocols.response_items import committed_call, conclude_call, message_item, reasoning_item
from common.model.events import Cancelled, Done, Error, Terminal
from common.model.messages import Message, Run, RunError, Usage
from common.model.responses import (
    CallItem,
    IncompleteDetails,
    InputTokensDetails,
    Item,
    OutputTokensDetails,
    ResponseConversation,
    ResponseError,
    ResponseObject,
    ResponseUsage,
    Status,
    conversation_name,
    response_id,
)
from common.model.run_state import FinishReason, RunState

_CUT_SHORT = {
    FinishReason.LENGTH: "max_output_tokens",
    FinishReason.CONTENT_FILTER: "content_filter",
    FinishReason.STEP_LIMIT: "step_limit",
}
_STATUS: dict[RunState, Status] = {
    RunState.WAITING: "queued",
    RunState.QUEUED: "queued",
    RunState.RUNNING: "in_progress",
    RunState.PAUSED: "in_progress",
    RunState.CANCELLED: "cancelled",
}


def begun(run: Run) -> ResponseObject:
    """The run's response as it was at first, whatever has become of it."""
    return ResponseObject(
        id=response_id(run.id),
        created_at=int(run.created_at.timestamp()),
        status="queued",
        model=f"{run.provider}/{run.model}",
        conversation=ResponseConversation(id=conversation_name(run.conversation_id)),
        output=[],
    )


def end(response: ResponseObject, event: Terminal) -> None:
    """The response as the run's last event leaves it."""
    match event:
        case Done():
            _complete(response, event.finish_reason)
            response.usage = _usage(event.usage)
        case Error():
            _fail(response, event.error)
        case Cancelled():
            response.status = "cancelled"


def response_of(run: Run, messages: Sequence[Message]) -> ResponseObject:
    """The response as the database has it; `messages` are the run's own, in order."""
    response = begun(run)
    response.output = _output(run, messages)
    if run.state is RunState.COMPLETED:
        _complete(response, run.finish_reason or FinishReason.OTHER)
    elif run.error is not None:
        _fail(response, run.error)
    else:
        response.status = _STATUS[run.state]
    if run.state.is_terminal:
        response.usage = _usage(run.usage)
    return response


def _output(run: Run, messages: Sequence[Message]) -> list[Item]:
    output: list[Item] = []
    calls: dict[str, CallItem] = {}
    step = 0
    for message in messages:
        if message.role == "assistant":
            step += 1
            if message.reasoning:
                output.append(reasoning_item(run.id, step, message.reasoning))
            if message.content:
                output.append(message_item(run.id, step, message.content))
            for call in message.tool_calls or []:
                calls[call.tool_call_id] = item = committed_call(call)
                output.append(item)
        elif message.tool_call_id in calls:
            conclude_call(calls[message.tool_call_id], message.content, bool(message.is_error))
    if run.partial_text:
        output.append(message_item(run.id, step + 1, run.partial_text, "incomplete"))
    return output


def _complete(response: ResponseObject, reason: FinishReason) -> None:
    response.status = "completed"
    if reason in _CUT_SHORT:
        response.status = "incomplete"
        response.incomplete_details = IncompleteDetails(reason=_CUT_SHORT[reason])


def _fail(response: ResponseObject, error: RunError) -> None:
    response.status = "failed"
    response.error = ResponseError(message=error.message, type=error.code)


def _usage(usage: Usage) -> ResponseUsage:
    return ResponseUsage(
        input_tokens=usage.input_tokens,
        input_tokens_details=InputTokensDetails(
            cached_tokens=usage.cached_input_tokens, cache_write_tokens=usage.cache_write_tokens
        ),
        output_tokens=usage.output_tokens,
        output_tokens_details=OutputTokensDetails(reasoning_tokens=usage.reasoning_tokens),
        total_tokens=usage.input_tokens + usage.output_tokens,
    )
