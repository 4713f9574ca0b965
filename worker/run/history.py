"""The conversation as a provider's request: committed messages in, HistoryMessages out."""

from common.store.run_messages import HistoryRow
from worker.providers.base import HistoryMessage, HistoryToolCall
from worker.tools.execute import MODEL_LIMIT_BYTES, cut_for_model

RESULT_CHARACTERS = MODEL_LIMIT_BYTES + 1
"""As much of a tool's result as is needed to show the model its beginning, and that there was more."""

_NO_RESULT = "No result: the call was never answered."


def to_history(rows: list[HistoryRow]) -> list[HistoryMessage]:
    """What the model is shown. Every call is followed by its result, whatever became of it: providers insist."""
    results = {row.tool_call_id: row for row in rows if row.role == "tool"}
    history: list[HistoryMessage] = []
    for row in rows:
        if row.role == "assistant":
            history.append(_assistant(row))
            history.extend(_result(call.tool_call_id, results.get(call.tool_call_id)) for call in row.tool_calls)
        elif row.role in ("user", "system"):
            history.append(HistoryMessage(role=row.role, content=row.content))
    return history


def _assistant(row: HistoryRow) -> HistoryMessage:
    return HistoryMessage(
        role="assistant",
        content=row.content,
        reasoning=row.reasoning,
        tool_calls=[
            HistoryToolCall(id=call.tool_call_id, name=call.name, arguments=call.arguments) for call in row.tool_calls
        ],
        provider=row.provider,
        provider_data=row.provider_data,
    )


def _result(tool_call_id: str, row: HistoryRow | None) -> HistoryMessage:
    return HistoryMessage(
        role="tool",
        content=cut_for_model(row.content) if row else _NO_RESULT,
        tool_call_id=tool_call_id,
        is_error=row.is_error if row else True,
    )


def estimate_tokens(history: list[HistoryMessage], instructions: str) -> int:
    """About four characters a token: what a request is taken to cost when nobody gives figures."""
    return (len(instructions) + sum(len(message.content) for message in history)) // 4 + 1
