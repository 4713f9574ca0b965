"""Whatever a tool does, the model gets an answer and the worker lives."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from common.config import Settings
from common.model.run_state import Effect, Outcome
from worker.tools import environment
from worker.tools.base import Tool, ToolContext, ToolError, tool
from worker.tools.execute import MODEL_LIMIT_BYTES, ToolOutcome, cut, cut_for_model, execute

CONTEXT = ToolContext(
    run_id=uuid4(),
    conversation_id=uuid4(),
    workspace_id=uuid4(),
    user="ada",
    tool_call_id="call_1",
    idempotency_key="k",
    attempt=1,
)


class Unreadable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no message")


RAISED: dict[str, BaseException] = {
    "ValueError": ValueError("boom"),
    "SystemExit": SystemExit(3),
    "KeyboardInterrupt": KeyboardInterrupt(),
    "GeneratorExit": GeneratorExit(),
    "CancelledError": asyncio.CancelledError("inner"),
    "TimeoutError": TimeoutError("slow disk"),
    "RecursionError": RecursionError("too deep"),
    "Unreadable": Unreadable(),
}


@tool(effect=Effect.READ)
async def answer(text: str) -> str:
    """Answers."""
    return text


@tool(effect=Effect.READ)
async def fail(kind: str) -> str:
    """Fails."""
    raise RAISED[kind]


@tool(effect=Effect.READ)
async def refuse() -> str:
    """Refuses."""
    raise ToolError("Not today.")


@tool
async def hang() -> str:
    """Hangs."""
    await asyncio.Event().wait()
    return "never"


@tool(timeout_s=0.01, effect=Effect.READ)
async def hang_briefly() -> str:
    """Hangs, with a limit of its own."""
    await asyncio.Event().wait()
    return "never"


@tool(effect=Effect.READ)
async def unencodable() -> Any:
    """Returns what JSON cannot hold."""
    return object()


async def run(chosen: Tool, arguments: dict[str, Any], timeout_s: float = 10, limit: int = 1_000) -> ToolOutcome:
    return await execute(chosen, arguments, CONTEXT, timeout_s=timeout_s, output_limit_bytes=limit)


async def test_result_of_a_good_call_is_its_answer() -> None:
    """A good call answers with its result and the outcome ok."""
    assert await run(answer, {"text": "fine"}) == ToolOutcome("fine", False, Outcome.OK)


async def test_invalid_arguments_are_an_answer_that_names_the_field() -> None:
    """A call outside of the schema is told so, with the field's name, and is not run."""
    content, is_error, outcome = await run(answer, {"text": 5})
    assert (is_error, outcome) == (True, Outcome.ERROR)
    assert "$.text" in content


async def test_tool_error_is_answered_in_the_tools_own_words() -> None:
    """ToolError answers with its message and nothing else."""
    assert await run(refuse, {}) == ToolOutcome("Not today.", True, Outcome.ERROR)


@pytest.mark.parametrize("kind", list(RAISED))
async def test_exception_of_any_kind_is_an_answer(kind: str) -> None:
    """Whatever a tool raises, even what would end the process, is an answer: its type and no traceback."""
    content, is_error, outcome = await run(fail, {"kind": kind})
    assert (is_error, outcome) == (True, Outcome.ERROR)
    assert kind in content
    assert "Traceback" not in content
    assert "line " not in content


async def test_exception_message_is_given_to_the_model() -> None:
    """The model gets the message of an exception, so that it can act on it."""
    assert (await run(fail, {"kind": "ValueError"})).content == "fail failed: ValueError: boom."


async def test_result_that_json_cannot_hold_is_an_error() -> None:
    """A result without a JSON form is an error answer that names its type."""
    outcome = await run(unencodable, {})
    assert outcome.is_error
    assert "object" in outcome.content


async def test_time_limit_of_the_worker_stops_a_tool() -> None:
    """A tool that takes longer than allowed is stopped; the doubt about its effect is told."""
    async with asyncio.timeout(5):
        content, is_error, _ = await run(hang, {}, timeout_s=0.01)
    assert is_error
    assert "longer than 0.01 s" in content
    assert "may or may not have taken effect" in content


async def test_time_limit_of_the_tool_goes_first() -> None:
    """A tool's own limit holds, whatever the worker's is; one that only reads leaves no doubt."""
    async with asyncio.timeout(5):
        content, is_error, _ = await run(hang_briefly, {}, timeout_s=1_000)
    assert is_error
    assert "may or may not" not in content


async def test_tool_that_ignores_cancellation_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time limit holds also for a tool that swallows its cancellation."""
    monkeypatch.setattr("worker.tools.execute._CANCEL_GRACE_S", 0.01)
    release = asyncio.Event()

    @tool
    async def stubborn() -> str:
        """Does not stop."""
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        return "late"

    async with asyncio.timeout(5):
        assert (await run(stubborn, {}, timeout_s=0.01)).is_error
    release.set()


async def test_cancelling_the_caller_cancels_the_tool_and_passes_on() -> None:
    """A cancelled run stops its tool at once, waits for its clean-up, and stays cancelled."""
    running, cleaned = asyncio.Event(), asyncio.Event()

    @tool
    async def tidy() -> str:
        """Cleans up."""
        try:
            running.set()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.set()
        return "never"

    caller = asyncio.create_task(run(tidy, {}))
    async with asyncio.timeout(5):
        await running.wait()
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
    assert cleaned.is_set()


async def test_output_beyond_the_limit_is_cut_and_marked() -> None:
    """What is kept of an output never takes more bytes than the limit, and says that it was cut."""
    content = (await run(answer, {"text": "é" * 5_000})).content
    assert len(content.encode()) <= 1_000
    assert content.startswith("éééé")
    assert content.endswith("[cut: the result is longer than 1,000 bytes]")


@pytest.mark.parametrize("text", ["", "a" * 1_000, "é" * 500, "😀" * 250, "\ud800" * 1_000])
def test_output_that_fits_is_not_touched(text: str) -> None:
    """A text of exactly as many bytes as allowed stays as it is, whatever its characters."""
    assert cut(text, 1_000) == text


@pytest.mark.parametrize("text", ["a" * 1_001, "é" * 501, "😀" * 251, "\ud800" * 1_001, "x" + "😀" * 5_000])
def test_cut_never_splits_a_character(text: str) -> None:
    """A text one byte too long is cut between two characters."""
    head, _, mark = cut(text, 1_000).partition("\n[cut")
    assert mark
    assert text.replace("\ud800", "?").startswith(head)
    assert len(head) > 200


def test_model_is_shown_256_kilobytes() -> None:
    """The model is shown at most 256 KB of a result."""
    assert len(cut_for_model("a" * 5_000_000)) == MODEL_LIMIT_BYTES == 256 * 1024


async def test_secret_of_the_settings_never_reaches_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a result nor an error text carries a hidden value."""
    monkeypatch.setattr(environment, "_hidden", set[str]())
    environment.hide_keys(Settings(openai_api_key="sk-canary-1", database_url="postgresql://app:canary-2@db/x"))
    monkeypatch.setitem(RAISED, "leak", ConnectionError("postgresql://app:canary-2@db/x"))
    assert (await run(answer, {"text": "key=sk-canary-1!"})).content == "key=***!"
    assert "canary-2" not in (await run(fail, {"kind": "leak"})).content
