"""Agents that read and write documents, in real workers."""

from typing import Any

import pytest

from tests.e2e.conftest import Running
from tests.support.eventually import eventually
from tests.support.failpoints import Failpoint
from tests.support.model_script import Call, Reply
from tests.support.system import Client, running_system

pytestmark = pytest.mark.asyncio(loop_scope="module")

_QUICK = {"LEASE_S": "2", "HEARTBEAT_S": "0.5", "SWEEP_S": "0.2"}
_MODEL = {"provider": "anthropic", "model": "claude-test"}


async def _document(someone: Client, content: str) -> str:
    return str((await someone.http.post("/v1/documents", json={"name": "Fish", "content": content})).json()["id"])


async def _text(someone: Client, document: str) -> Any:
    return (await someone.http.get(f"/v1/documents/{document}")).json()["content"]


def _results(events: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(event["outcome"], event["result"]) for event in events if event["type"] == "tool_result"]


async def test_agent_edits_a_document(running: Running, someone: Client) -> None:
    """Its edit is one of the history, under the run and the call; what it did not touch stays."""
    document = await _document(someone, "cod\neel\n")
    running.system.models.script(
        Reply(calls=(Call("doc_edit", {"id": document, "old_text": "eel", "new_text": "tuna 😀"}),)),
        Reply(calls=(Call("doc_append", {"id": document, "content": "end\n"}), Call("doc_read", {"id": document}))),
        Reply(text="done"),
    )
    run = await someone.start("go", **_MODEL)
    events = await someone.events(run)

    assert [outcome for outcome, _ in _results(events)] == ["ok", "ok", "ok"]
    assert await _text(someone, document) == "cod\ntuna 😀\nend\n"
    history = (await someone.http.get(f"/v1/documents/{document}/history")).json()["data"]
    assert [(edit["actorKind"], edit["actorId"], edit["runId"]) for edit in history] == [
        ("agent", "alice", run["id"]),
        ("agent", "alice", run["id"]),
        ("user", "alice", None),
    ]
    calls = [event["toolCallId"] for event in events if event["type"] == "tool_call"]
    assert {edit["toolCallId"] for edit in history} == {*calls[:2], None}


async def test_edit_that_cannot_be_made_is_answered_to_the_model(running: Running, someone: Client) -> None:
    """Not there, there twice, no such document: it is told why, and nothing has changed."""
    document = await _document(someone, "cod cod\n")
    edits = [
        {"id": document, "old_text": "eel", "new_text": "x"},
        {"id": document, "old_text": "cod", "new_text": "x"},
        {"id": str(someone.workspace_id), "old_text": "cod", "new_text": "x"},
    ]
    running.system.models.script(Reply(calls=tuple(Call("doc_edit", edit) for edit in edits)), Reply(text="I see"))
    run = await someone.start("go", **_MODEL)
    results = _results(await someone.events(run))
    assert [outcome for outcome, _ in results] == ["error"] * 3
    assert ["0 times" in results[0][1], "2 times" in results[1][1], "no document" in results[2][1]] == [True] * 3
    assert await _text(someone, document) == "cod cod\n"


async def test_agent_makes_finds_and_deletes_documents(running: Running, someone: Client) -> None:
    """Of its own workspace, as its user could."""
    running.system.models.script(
        Reply(calls=(Call("doc_create", {"name": "Birds", "content": "owl\n"}),)),
        Reply(calls=(Call("doc_search", {"query": "ow"}), Call("doc_list", {}))),
        Reply(text="done"),
    )
    run = await someone.start("go", **_MODEL)
    results = _results(await someone.events(run))
    [made] = (await someone.http.get("/v1/documents")).json()["data"]
    assert (made["name"], made["createdBy"]) == ("Birds", "alice")
    assert all(made["id"] in result for _, result in results)
    running.system.models.script(Reply(calls=(Call("doc_delete", {"id": made["id"]}),)), Reply(text="gone"))
    assert _results(await someone.events(await someone.start("go", **_MODEL))) == [("ok", "Deleted.")]
    assert (await someone.http.get("/v1/documents")).json()["data"] == []


@pytest.mark.parametrize(
    "place", ["tool.before_effect", "tool.after_effect", "result.before_commit", "result.after_commit"]
)
async def test_edit_happens_once_though_its_worker_is_killed(place: str) -> None:
    """Before, in or after the edit's transaction: the next worker finds it done, or does it, and never twice."""
    async with running_system(forked=True) as system:
        someone = await system.client(await system.api())
        document = await _document(someone, "fish: ")
        system.models.script(Reply(calls=(Call("doc_append", {"id": document, "content": "cod"}),)), Reply(text="done"))
        dying = await system.worker(Failpoint(place, "exit"), **_QUICK)
        run = await someone.start("go", **_MODEL)
        await eventually(lambda: dying.child.returncode is not None, 20)
        await system.worker(**_QUICK)
        await someone.state_is(run, "completed", 30)
        assert await _text(someone, document) == "fish: cod"
        [result] = [message for message in await someone.messages(run) if message["role"] == "tool"]
        assert result["outcome"] == "ok"


@pytest.mark.parametrize("place", ["result.before_commit", "result.after_commit"])
async def test_edit_whose_commit_is_not_answered_happens_once(place: str) -> None:
    """The worker cannot know whether it was committed: it looks, and does again only what was not."""
    async with running_system(forked=True) as system:
        someone = await system.client(await system.api())
        document = await _document(someone, "fish: ")
        system.models.script(Reply(calls=(Call("doc_append", {"id": document, "content": "cod"}),)), Reply(text="done"))
        await system.worker(Failpoint(place, "raise"))
        run = await someone.start("go", **_MODEL)
        await someone.state_is(run, "completed", 30)
        assert system.failpoints.fired(place) == 1
        assert await _text(someone, document) == "fish: cod"
        [result] = [message for message in await someone.messages(run) if message["role"] == "tool"]
        assert result["outcome"] == "ok"
