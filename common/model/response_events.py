"""The events of a stream of OpenAI's Responses API, as far as they are spoken here."""

from typing import Any

import msgspec

from common.model.responses import Item, OutputText, ResponseObject, SummaryText


class StreamEvent(msgspec.Struct, tag_field="type", kw_only=True):
    """Numbered when it is told."""

    sequence_number: int = 0


class ResponseCreated(StreamEvent, tag="response.created", kw_only=True):
    """The first."""

    response: ResponseObject


class ResponseInProgress(StreamEvent, tag="response.in_progress", kw_only=True):
    """Work has begun."""

    response: ResponseObject


class ResponseCompleted(StreamEvent, tag="response.completed", kw_only=True):
    """The end, as it should be."""

    response: ResponseObject


class ResponseIncomplete(StreamEvent, tag="response.incomplete", kw_only=True):
    """The end of one that was cut short, or cancelled, as its `status` says."""

    response: ResponseObject


class ResponseFailed(StreamEvent, tag="response.failed", kw_only=True):
    """The end of one that failed."""

    response: ResponseObject


class ItemAdded(StreamEvent, tag="response.output_item.added", kw_only=True):
    """An item begins."""

    output_index: int
    item: Item


class ItemDone(StreamEvent, tag="response.output_item.done", kw_only=True):
    """An item is what it will stay."""

    output_index: int
    item: Item


class _OfItem(StreamEvent, kw_only=True):
    item_id: str
    output_index: int


class _OfContent(_OfItem, kw_only=True):
    content_index: int


class ContentPartAdded(_OfContent, tag="response.content_part.added", kw_only=True):
    """A part of a message begins."""

    part: OutputText


class ContentPartDone(_OfContent, tag="response.content_part.done", kw_only=True):
    """A part of a message is whole, or given up."""

    part: OutputText


class TextDelta(_OfContent, tag="response.output_text.delta", kw_only=True):
    """A piece of a message's text."""

    delta: str
    logprobs: list[Any] = []


class TextDone(_OfContent, tag="response.output_text.done", kw_only=True):
    """The text of a part."""

    text: str
    logprobs: list[Any] = []


class _OfSummary(_OfItem, kw_only=True):
    summary_index: int


class SummaryPartAdded(_OfSummary, tag="response.reasoning_summary_part.added", kw_only=True):
    """A stretch of reasoning begins."""

    part: SummaryText


class SummaryPartDone(_OfSummary, tag="response.reasoning_summary_part.done", kw_only=True):
    """A stretch of reasoning is whole, or given up."""

    part: SummaryText


class SummaryDelta(_OfSummary, tag="response.reasoning_summary_text.delta", kw_only=True):
    """A piece of reasoning."""

    delta: str


class SummaryDone(_OfSummary, tag="response.reasoning_summary_text.done", kw_only=True):
    """The text of a stretch of reasoning."""

    text: str


class ArgumentsDelta(_OfItem, tag="response.mcp_call_arguments.delta", kw_only=True):
    """A piece of a call's arguments."""

    delta: str


class ArgumentsDone(_OfItem, tag="response.mcp_call_arguments.done", kw_only=True):
    """A call's arguments."""

    arguments: str


class CallInProgress(_OfItem, tag="response.mcp_call.in_progress", kw_only=True):
    """The model makes a call."""


class CallCompleted(_OfItem, tag="response.mcp_call.completed", kw_only=True):
    """A call has its result."""


class CallFailed(_OfItem, tag="response.mcp_call.failed", kw_only=True):
    """A call went wrong, or nobody can tell."""
