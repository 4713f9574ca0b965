"""The items of a response: how one of a committed message looks, and how text and calls stream into an open one."""

from collections.abc import Iterator
from uuid import UUID

import msgspec

from common.model.messages import ToolCallRequest
from common.model.response_events import (
    ContentPartAdded,
    ContentPartDone,
    StreamEvent,
    SummaryDelta,
    SummaryDone,
    SummaryPartAdded,
    SummaryPartDone,
    TextDelta,
    TextDone,
)
from common.model.responses import (
    CallItem,
    ItemStatus,
    MessageItem,
    OutputText,
    ReasoningItem,
    SummaryText,
    ToolError,
)


def message_item(run_id: UUID, step: int, text: str | None, status: ItemStatus = "completed") -> MessageItem:
    """What a step said; without text while nothing is certain."""
    content = [] if text is None else [OutputText(text=text)]
    return MessageItem(id=f"msg_{run_id.hex}_{step}", status=status, content=content)


def reasoning_item(run_id: UUID, step: int, text: str | None, status: ItemStatus = "completed") -> ReasoningItem:
    """What a step showed of its reasoning."""
    summary = [] if text is None else [SummaryText(text=text)]
    return ReasoningItem(id=f"rs_{run_id.hex}_{step}", status=status, summary=summary)


def call_item(tool_call_id: str, name: str) -> CallItem:
    """A call that the model begins to make."""
    return CallItem(id=f"mcp_{tool_call_id.removeprefix('call_')}", status="in_progress", name=name, arguments="")


def committed_call(call: ToolCallRequest) -> CallItem:
    """A call that is about to run."""
    item = call_item(call.tool_call_id, call.name)
    item.arguments = msgspec.json.encode(call.arguments).decode()
    return item


def conclude_call(item: CallItem, result: str, is_error: bool) -> None:
    """The call with what came of it."""
    if is_error:
        item.status, item.error = "failed", ToolError(content=[{"type": "text", "text": result}])
    else:
        item.status, item.output = "completed", result


class OpenText:
    """An item into which text streams, part after part; `text` is what the current try has said."""

    def __init__(self, run_id: UUID, step: int, index: int) -> None:
        self.index = index
        self._run_id = run_id
        self._step = step
        self._part = 0
        self._is_part_open = False
        self._pieces: list[str] = []
        self._before = ""
        """What the try has said in parts that are closed."""
        self.id = self.item(None, "in_progress").id

    @property
    def text(self) -> str:
        """What a commit is to bear out."""
        return self._before + "".join(self._pieces)

    def item(self, text: str | None, status: ItemStatus = "completed") -> MessageItem | ReasoningItem:
        """The item as it is shown when it is added, and when it is done."""
        raise NotImplementedError

    def add(self, piece: str) -> Iterator[StreamEvent]:
        """A piece of text."""
        if not self._is_part_open:
            self._is_part_open = True
            yield self._part_added()
        self._pieces.append(piece)
        yield self._delta(piece)

    def close_part(self) -> Iterator[StreamEvent]:
        """What comes next is another part."""
        if self._is_part_open:
            text = "".join(self._pieces)
            yield from self._part_done(text)
            self._before += text
            self._pieces.clear()
            self._is_part_open = False
            self._part += 1

    def give_up(self) -> Iterator[StreamEvent]:
        """The step is asked again."""
        yield from self.close_part()
        self._before = ""

    def finish(self, text: str) -> Iterator[StreamEvent]:
        """Tells what is lacking of `text`, the committed one."""
        said = self.text
        if not text.startswith(said):
            yield from self.give_up()
            said = ""
        if len(text) > len(said):
            yield from self.add(text[len(said) :])
        yield from self.close_part()

    def _part_added(self) -> StreamEvent:
        raise NotImplementedError

    def _delta(self, piece: str) -> StreamEvent:
        raise NotImplementedError

    def _part_done(self, text: str) -> Iterator[StreamEvent]:
        raise NotImplementedError


class OpenMessage(OpenText):
    """A step's answer."""

    def item(self, text: str | None, status: ItemStatus = "completed") -> MessageItem:
        return message_item(self._run_id, self._step, text, status)

    def _part_added(self) -> StreamEvent:
        return ContentPartAdded(
            item_id=self.id, output_index=self.index, content_index=self._part, part=OutputText(text="")
        )

    def _delta(self, piece: str) -> StreamEvent:
        return TextDelta(item_id=self.id, output_index=self.index, content_index=self._part, delta=piece)

    def _part_done(self, text: str) -> Iterator[StreamEvent]:
        yield TextDone(item_id=self.id, output_index=self.index, content_index=self._part, text=text)
        yield ContentPartDone(
            item_id=self.id, output_index=self.index, content_index=self._part, part=OutputText(text=text)
        )


class OpenReasoning(OpenText):
    """A step's visible reasoning."""

    def item(self, text: str | None, status: ItemStatus = "completed") -> ReasoningItem:
        return reasoning_item(self._run_id, self._step, text, status)

    def _part_added(self) -> StreamEvent:
        return SummaryPartAdded(
            item_id=self.id, output_index=self.index, summary_index=self._part, part=SummaryText(text="")
        )

    def _delta(self, piece: str) -> StreamEvent:
        return SummaryDelta(item_id=self.id, output_index=self.index, summary_index=self._part, delta=piece)

    def _part_done(self, text: str) -> Iterator[StreamEvent]:
        yield SummaryDone(item_id=self.id, output_index=self.index, summary_index=self._part, text=text)
        yield SummaryPartDone(
            item_id=self.id, output_index=self.index, summary_index=self._part, part=SummaryText(text=text)
        )
