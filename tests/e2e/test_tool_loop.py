"""Whole runs against a model server that speaks the real wires over HTTP: the loop, its tools, its failures."""

from typing import Any

import pytest

from tests.e2e.conftest import Running
from tests.support.model_script import Call, Reply, TokenCounts
from tests.support.system import Client, fold

pytestmark = pytest.mark.asyncio(loop_scope="module")

FAMILIES = [("anthropic", "claude-test"), ("openai", "gpt-test"), ("openrouter", "any/model")]
each_family = pytest.mark.parametrize(("provider", "model"), FAMILIES, ids=[name for name, _ in FAMILIES])


async def _play(
    running: Running, someone: Client, provider: str, model: str, *replies: Reply
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The run that these answers make, and its events."""
    running.system.models.script(*replies)
    run = await someone.start("please", provider=provider, model=model)
    events = await someone.events(run)
    return await someone.run(run), events


def _of(events: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [event for event in events if event["type"] == kind]


@each_family
async def test_answer_is_streamed_stored_and_counted(
    running: Running, someone: Client, provider: str, model: str
) -> None:
    """Every token reaches the client, the conversation holds both messages, usage is the provider's."""
    tokens = TokenCounts(input=40, output=9, cached=10)
    run, events = await _play(running, someone, provider, model, Reply(text="the answer of the model", tokens=tokens))
    assert "".join(event["content"] for event in _of(events, "token")) == "the answer of the model"
    assert (run["state"], run["finishReason"], run["stepCount"]) == ("completed", "stop", 1)
    assert (run["usage"]["inputTokens"], run["usage"]["outputTokens"]) == (40, 9)
    assert run["usage"]["cachedInputTokens"] == 10
    assert run["usage"]["estimated"] is False
    question, answer = await someone.messages(run)
    assert (question["role"], question["content"]) == ("user", "please")
    assert (answer["role"], answer["content"], answer["runId"]) == ("assistant", "the answer of the model", run["id"])
    assert None not in run["timings"].values()


@each_family
async def test_parallel_calls_are_run_and_answered_in_order(
    running: Running, someone: Client, provider: str, model: str
) -> None:
    """Streamed arguments become calls, their results go back to the model in the calls' order, and the run goes on."""
    run, events = await _play(
        running,
        someone,
        provider,
        model,
        Reply(text="let me see", calls=(Call("shout", {"word": "one"}), Call("shout", {"word": "two"}))),
        Reply(text="ONE and TWO"),
    )
    assert (run["state"], run["stepCount"]) == ("completed", 2)
    called = _of(events, "tool_call")
    assert [call["arguments"] for call in called] == [{"word": "one"}, {"word": "two"}]
    deltas = [
        event["delta"] for event in _of(events, "tool_call_delta") if event["toolCallId"] == called[0]["toolCallId"]
    ]
    assert "one" in "".join(deltas)
    messages = await someone.messages(run)
    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "tool", "assistant"]
    assert [message["content"] for message in messages[2:4]] == ["ONE", "TWO"]
    assert [message["toolCallId"] for message in messages[2:4]] == [call["toolCallId"] for call in called]
    held, _ = fold(events)
    assert sorted(message["content"] for message in held) == sorted(message["content"] for message in messages[1:])


@each_family
@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (Call("shout", {"loud": True}), "loud"),
        (Call("shout", '{"word": '), "JSON"),
        (Call("no_such_tool", {}), "no_such_tool"),
        (Call("fail", {"reason": "the shop is closed"}), "the shop is closed"),
    ],
    ids=["invalid arguments", "broken JSON", "unknown tool", "tool error"],
)
async def test_call_that_fails_is_answered_to_the_model(
    running: Running, someone: Client, provider: str, model: str, call: Call, complaint: str
) -> None:
    """Whatever is wrong with a call, the model hears of it and the run completes."""
    run, events = await _play(running, someone, provider, model, Reply(calls=(call,)), Reply(text="I see"))
    (result,) = _of(events, "tool_result")
    assert (run["state"], result["isError"], result["outcome"]) == ("completed", True, "error")
    assert complaint in result["result"]


@each_family
@pytest.mark.parametrize(
    ("stop", "finish_reason"), [("length", "length"), ("refusal", "content_filter")], ids=["length", "refusal"]
)
async def test_stop_reasons_reach_the_client(
    running: Running, someone: Client, provider: str, model: str, stop: Any, finish_reason: str
) -> None:
    """An answer that was cut short completes the run and says why."""
    run, events = await _play(running, someone, provider, model, Reply(text="so far so", stop=stop))
    assert (run["state"], run["finishReason"]) == ("completed", finish_reason)
    assert events[-1]["finishReason"] == finish_reason


@each_family
async def test_error_in_mid_stream_is_asked_again(running: Running, someone: Client, provider: str, model: str) -> None:
    """What the broken stream showed is discarded; the second answer is the only one stored."""
    run, events = await _play(
        running, someone, provider, model, Reply(text="half an ans", error="overloaded"), Reply(text="a whole answer")
    )
    assert run["state"] == "completed"
    assert len(_of(events, "discarded")) == 1
    assert [message["content"] for message in await someone.messages(run)] == ["please", "a whole answer"]


@each_family
async def test_rate_limit_is_waited_for(running: Running, someone: Client, provider: str, model: str) -> None:
    """A 429 with Retry-After is obeyed and the run completes."""
    run, _ = await _play(
        running, someone, provider, model, Reply(status=429, headers={"retry-after": "1"}), Reply(text="at last")
    )
    assert run["state"] == "completed"
    assert run["timings"]["firstTokenMs"] >= 1000


@each_family
async def test_server_error_twice_then_success(running: Running, someone: Client, provider: str, model: str) -> None:
    """Two failures of the provider stay invisible to the client."""
    run, events = await _play(
        running, someone, provider, model, Reply(status=500), Reply(status=500), Reply(text="third time")
    )
    assert run["state"] == "completed"
    assert _of(events, "discarded") == []


@each_family
async def test_refused_request_fails_the_run(running: Running, someone: Client, provider: str, model: str) -> None:
    """A 400 of the provider is an end, told as one `error`, stored with its code; no key is in it."""
    run, events = await _play(running, someone, provider, model, Reply(status=400))
    assert (run["state"], run["error"]["code"], run["error"]["retryable"]) == ("failed", "provider_rejected", False)
    assert events[-1]["error"] == run["error"]
    assert "sk-canary" not in str(run)


async def test_step_limit_completes_the_run(running: Running, someone: Client) -> None:
    """A model that never stops calling is stopped by its agent's limit, and that is no failure."""
    agent = await someone.http.post(
        "/v1/agents", json={"name": "looper", "maxSteps": 2, "tools": ["shout"], "provider": "anthropic", "model": "m"}
    )
    reply = Reply(calls=(Call("shout", {"word": "again"}),))
    running.system.models.script(reply, reply)
    run = await someone.start("loop", agentId=agent.json()["id"])
    events = await someone.events(run)
    assert (events[-1]["type"], events[-1]["finishReason"], events[-1]["stepCount"]) == ("done", "step_limit", 2)


async def test_edited_message_is_what_the_model_sees(running: Running, someone: Client) -> None:
    """The model reads the edit, while the original stays in the record."""
    run = await someone.start("say cat")
    await someone.events(run)
    path = f"/v1/conversations/{run['conversationId']}/messages/{run['triggerMessageId']}"
    edited = await someone.http.put(path, json={"content": "say dog"})
    assert (edited.json()["content"], edited.json()["editedContent"]) == ("say cat", "say dog")
    again = await someone.http.post(f"{path}/regenerate", json={})
    events = await someone.events(again.json()["run"])
    assert _of(events, "step")[0]["message"]["content"] == "Echo from agent: say dog"
    contents = [message["content"] for message in await someone.messages(run)]
    assert contents == ["say cat", "Echo from agent: say dog"], "the old answer is superseded"
