"""A process dies, loses a reply or stands still at each of the places where two stores may be left apart."""

import ast
import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

import api
import common
import worker
from common.failpoints import FAILPOINTS
from tests.support.chaos import Chaos
from tests.support.failpoints import Failpoint
from tests.support.fake_model_server import FakeModelServer
from tests.support.seams import (
    Action,
    Expected,
    Seam,
    amid,
    calls,
    cancel,
    cancel_queued,
    cancelled_after_a_crash,
    crashed,
    delete,
    drain,
    edit,
    lost_log,
    next_run,
    not_promoted,
    post,
    post_chat,
    regenerate,
    respond,
    scene,
    slow_answer,
)
from tests.support.servers import Servers

_AT_ONCE = 8
_look, _store, _charge = calls("look"), calls("store"), calls("charge")

_AS_IF_NOTHING = Expected()
_TAKEN_OVER = Expected(attempts=2, crashes=1)
_ASKED_AGAIN = Expected(attempts=2, crashes=1, asked=3)
_UNKNOWN = Expected(attempts=2, crashes=1, outcome="unknown", effects=0)
_UNKNOWN_BUT_DONE = Expected(attempts=2, crashes=1, outcome="unknown", effects=1)
_DONE_AGAIN = Expected(attempts=2, crashes=1, effects=2)
_AT_ANY_MOMENT = Expected(attempts=2, crashes=1, outcome=None, effects=None, asked=None)
_CANCELLED = Expected(outcome=None, effects=0, asked=None, state="cancelled")
_CANCELLED_BY_THE_SWEEP = Expected(attempts=2, outcome=None, effects=0, asked=1, state="cancelled")
_EDITED = Expected()

_WORKER_DIES = [
    Seam("claim.after", "exit", _charge, _TAKEN_OVER, smoke=True),
    Seam("model_call.before_commit", "exit", _charge, _TAKEN_OVER),
    Seam("model_call.after_commit", "exit", _charge, _ASKED_AGAIN),
    Seam("step.before_commit", "exit", _charge, _ASKED_AGAIN, smoke=True),
    Seam("step.after_commit", "exit", _charge, _TAKEN_OVER, smoke=True),
    Seam("call.before_commit", "exit", _charge, _TAKEN_OVER),
    Seam("call.before_commit", "exit", _store, _TAKEN_OVER),
    Seam("call.before_commit", "exit", _look, _TAKEN_OVER),
    Seam("call.after_commit", "exit", _charge, _UNKNOWN),
    Seam("call.after_commit", "exit", _store, _TAKEN_OVER),
    Seam("call.after_commit", "exit", _look, _TAKEN_OVER),
    Seam("tool.before_effect", "exit", _charge, _UNKNOWN, smoke=True),
    Seam("tool.before_effect", "exit", _store, _TAKEN_OVER),
    Seam("tool.before_effect", "exit", _look, _TAKEN_OVER),
    Seam("tool.after_effect", "exit", _charge, _UNKNOWN_BUT_DONE, smoke=True),
    Seam("tool.after_effect", "exit", _store, _DONE_AGAIN),
    Seam("tool.after_effect", "exit", _look, _DONE_AGAIN),
    Seam("result.before_commit", "exit", _charge, _UNKNOWN_BUT_DONE),
    Seam("result.before_commit", "exit", _store, _DONE_AGAIN),
    Seam("result.before_commit", "exit", _look, _DONE_AGAIN),
    Seam("result.after_commit", "exit", _charge, _TAKEN_OVER),
    Seam("result.after_commit", "exit", _store, _TAKEN_OVER),
    Seam("step.before_commit", "exit", _charge, _ASKED_AGAIN, on=2),
    Seam("step.after_commit", "exit", _charge, _TAKEN_OVER, on=2),
    Seam("end.before_commit", "exit", _charge, _TAKEN_OVER),
    Seam("end.after_commit", "exit", _charge, _AS_IF_NOTHING),
    Seam("end.before_append", "exit", _charge, _AS_IF_NOTHING, smoke=True),
    Seam("heartbeat.after", "exit", slow_answer, _ASKED_AGAIN),
    Seam("raise_attempt.after_commit", "exit", lost_log, Expected(attempts=3, crashes=1, asked=3)),
    *(Seam("append.after", "exit", _charge, _AT_ANY_MOMENT, on=on) for on in range(1, 7)),
    Seam(
        "append.retry",
        "exit",
        _charge,
        _AT_ANY_MOMENT,
        after=(Failpoint("append.after", "raise", on=3),),
        smoke=True,
    ),
    Seam("hand_back.before_commit", "exit", drain, _TAKEN_OVER),
    Seam("hand_back.after_commit", "exit", drain, Expected(attempts=2)),
    Seam("bell.before", "exit", drain, Expected(attempts=2)),
    Seam("bell.before", "exit", next_run, _AS_IF_NOTHING),
    Seam("bell.after", "exit", next_run, _AS_IF_NOTHING),
    Seam("sweep.after", "exit", crashed, _ASKED_AGAIN),
    Seam("sweep.after", "exit", cancelled_after_a_crash, _CANCELLED_BY_THE_SWEEP),
    Seam("tell_end.before", "exit", cancelled_after_a_crash, _CANCELLED_BY_THE_SWEEP),
    Seam("tell_end.after", "exit", cancelled_after_a_crash, _CANCELLED_BY_THE_SWEEP),
    Seam("promote.before_commit", "exit", not_promoted, _AS_IF_NOTHING),
    Seam("promote.after_commit", "exit", not_promoted, _AS_IF_NOTHING),
]

_WORKER_LOSES_A_REPLY = [
    Seam("claim.after", "raise", _charge, _TAKEN_OVER, note="claimed and not known to be"),
    *(
        Seam(f"{commit}.{side}_commit", "raise", _charge, _AS_IF_NOTHING, on=on)
        for commit, passings in {
            "model_call": (1, 2),
            "step": (1, 2),
            "call": (1,),
            "result": (1,),
            "end": (1,),
        }.items()
        for side in ("before", "after")
        for on in passings
    ),
    Seam("end.before_append", "raise", _charge, _AS_IF_NOTHING),
    Seam("heartbeat.after", "raise", slow_answer, _AS_IF_NOTHING),
    Seam("raise_attempt.after_commit", "raise", lost_log, Expected(attempts=2)),
    *(Seam("append.after", "raise", _charge, _AS_IF_NOTHING, on=on) for on in range(1, 7)),
    Seam(
        "append.retry",
        "raise",
        _charge,
        _AT_ANY_MOMENT,
        after=(Failpoint("append.after", "raise", on=3),),
        note="the sink breaks",
    ),
    Seam("hand_back.before_commit", "raise", drain, Expected(attempts=2)),
    Seam("hand_back.after_commit", "raise", drain, Expected(attempts=2)),
    Seam("bell.before", "raise", next_run, _AS_IF_NOTHING),
    Seam("bell.after", "raise", next_run, _AS_IF_NOTHING),
    Seam("sweep.after", "raise", crashed, _ASKED_AGAIN),
    Seam("sweep.after", "raise", cancelled_after_a_crash, _CANCELLED_BY_THE_SWEEP),
    Seam("tell_end.before", "raise", cancelled_after_a_crash, _CANCELLED_BY_THE_SWEEP),
    Seam("tell_end.after", "raise", cancelled_after_a_crash, _CANCELLED_BY_THE_SWEEP),
    Seam("promote.before_commit", "raise", not_promoted, _AS_IF_NOTHING),
    Seam("promote.after_commit", "raise", not_promoted, _AS_IF_NOTHING),
]

# A transaction that stands still is ended by Postgres after 5 s, and its run is taken over only then.
_WORKER_STANDS_STILL = [
    Seam("claim.after", "block", _charge, _TAKEN_OVER),
    Seam("model_call.before_commit", "block", _charge, _TAKEN_OVER),
    Seam("model_call.after_commit", "block", _charge, _ASKED_AGAIN),
    Seam("step.before_commit", "block", _charge, _ASKED_AGAIN),
    Seam("step.after_commit", "block", _charge, _TAKEN_OVER),
    Seam("call.before_commit", "block", _charge, _TAKEN_OVER),
    Seam("call.after_commit", "block", _charge, _UNKNOWN),
    Seam("call.after_commit", "block", _store, _TAKEN_OVER),
    Seam("tool.before_effect", "block", _charge, _UNKNOWN_BUT_DONE),
    Seam("tool.before_effect", "block", _store, _DONE_AGAIN),
    Seam("tool.after_effect", "block", _charge, _UNKNOWN_BUT_DONE),
    Seam("result.before_commit", "block", _charge, _UNKNOWN_BUT_DONE),
    Seam("result.after_commit", "block", _charge, _TAKEN_OVER),
    Seam("end.before_commit", "block", _charge, _TAKEN_OVER),
    Seam("end.after_commit", "block", _charge, _AS_IF_NOTHING),
    Seam("end.before_append", "block", _charge, _AS_IF_NOTHING),
    Seam("heartbeat.after", "block", slow_answer, _AS_IF_NOTHING),  # the next beat does not wait for it
    Seam("heartbeat.after", "block", slow_answer, _ASKED_AGAIN, times=1000, note="every beat"),
    Seam("raise_attempt.after_commit", "block", lost_log, Expected(attempts=3, crashes=1, asked=3)),
    Seam("append.after", "block", slow_answer, _ASKED_AGAIN, on=3),
    Seam("append.retry", "block", slow_answer, _ASKED_AGAIN, after=(Failpoint("append.after", "raise", on=3),)),
    Seam("hand_back.before_commit", "block", drain, _TAKEN_OVER),
    Seam("hand_back.after_commit", "block", drain, Expected(attempts=2)),
    Seam("bell.before", "block", next_run, _AS_IF_NOTHING),
    Seam("sweep.after", "block", crashed, _ASKED_AGAIN),
    Seam("sweep.after", "block", cancelled_after_a_crash, _CANCELLED_BY_THE_SWEEP),
    Seam("tell_end.before", "block", cancelled_after_a_crash, _CANCELLED_BY_THE_SWEEP),
    Seam("promote.before_commit", "block", not_promoted, _AS_IF_NOTHING),
    Seam("promote.after_commit", "block", not_promoted, _AS_IF_NOTHING),
    Seam("claim.after", "block", amid, _TAKEN_OVER),
    Seam("model_call.after_commit", "block", amid, _ASKED_AGAIN),
    Seam("step.after_commit", "block", amid, _TAKEN_OVER, smoke=True),
    Seam("tool.after_effect", "block", amid, _UNKNOWN_BUT_DONE),
    Seam("result.after_commit", "block", amid, _TAKEN_OVER),
]


def _at_an_api() -> Iterator[Seam]:
    actions: tuple[Action, ...] = ("exit", "raise", "block")
    for action in actions:
        smoke = action == "exit"
        for name in ("request.before_commit", "request.after_commit", "bell.before", "bell.after"):
            for story in (post, post_chat, respond):
                yield Seam(name, action, story, _AS_IF_NOTHING, smoke=smoke and name == "bell.before")
        for side in ("before", "after"):
            yield Seam(f"request.{side}_commit", action, regenerate, _AS_IF_NOTHING)
            yield Seam(f"request.{side}_commit", action, edit, _AS_IF_NOTHING)
            yield Seam(f"request.{side}_commit", action, delete, _CANCELLED)
            yield Seam(f"request.{side}_commit", action, cancel, _CANCELLED)
            yield Seam(f"request.{side}_commit", action, cancel_queued, _CANCELLED)
            yield Seam(f"tell_end.{side}", action, cancel_queued, _CANCELLED)
        yield Seam("signal.before", action, cancel, _CANCELLED)
        yield Seam("signal.before", action, delete, _CANCELLED)


SEAMS = [*_WORKER_DIES, *_WORKER_LOSES_A_REPLY, *_WORKER_STANDS_STILL, *_at_an_api()]
_PLAYED = [seam for seam in SEAMS if seam.smoke or Chaos("seams").full]


class Stage:
    """Plays the seams of this test run, several at a time, each in a system of its own on shared servers."""

    def __init__(self, servers: Servers, models: FakeModelServer, seams: list[Seam]) -> None:
        self._servers = servers
        self._models = models
        self._redis_urls: asyncio.Queue[str] = asyncio.Queue()
        for number in range(1, _AT_ONCE + 1):
            self._redis_urls.put_nowait(f"{servers.redis_url.partition('?')[0]}?db={number}")
        self.playing = {seam.id: asyncio.create_task(self._play(seam)) for seam in seams}

    async def _play(self, seam: Seam) -> list[str]:
        redis_url = await self._redis_urls.get()
        try:
            armed = (Failpoint(seam.name, seam.action, seam.on, seam.times), *seam.after)
            async with scene(self._servers, self._models, redis_url, armed) as played:
                try:
                    await seam.story(played)
                    problems = await played.problems(seam.expected)
                except AssertionError as error:
                    problems = [str(error)]
                return problems and [*problems, *await played.description()]
        finally:
            self._redis_urls.put_nowait(redis_url)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(request: pytest.FixtureRequest, servers: Servers) -> AsyncIterator[Stage]:
    """All seams that are asked for begin at once."""
    asked_for: list[Any] = [
        item.callspec.params["seam"]
        for item in request.session.items
        if isinstance(item, pytest.Function) and "stage" in item.fixturenames
    ]
    async with FakeModelServer() as models:
        stage = Stage(servers, models, asked_for)
        yield stage
        for task in stage.playing.values():
            task.cancel()
        await asyncio.gather(*stage.playing.values(), return_exceptions=True)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("seam", [pytest.param(seam, id=seam.id) for seam in _PLAYED])
async def test_seam(seam: Seam, stage: Stage) -> None:
    """Whatever happens at this place: the run comes out as declared, its calls took effect as often as declared."""
    problems = await stage.playing[seam.id]
    assert not problems, "\n".join(problems)


def test_seams_are_all_the_places_there_are() -> None:
    """Every failpoint stands in the product, every one in the product is known, and each is played in some way."""
    assert set(_passed_in_the_product()) == FAILPOINTS
    assert {seam.name for seam in SEAMS} == FAILPOINTS
    assert len({seam.id for seam in SEAMS}) == len(SEAMS)


def _passed_in_the_product() -> Iterator[str]:
    """The argument of each `failpoint(…)`; of an f-string, what the `_commit(…)` of the worker make of it."""
    packages = (Path(str(package.__file__)).parent for package in (api, worker, common))
    trees = [ast.parse(path.read_text()) for package in packages for path in package.rglob("*.py")]
    commits = [
        str(first.value)
        for tree in trees
        for call in _calls(tree, "_commit")
        if isinstance(first := call.args[0], ast.Constant)
    ]
    for call in (call for tree in trees for call in _calls(tree, "failpoint")):
        match call.args[0]:
            case ast.Constant(value=str(name)):
                yield name
            case ast.JoinedStr(values=[ast.FormattedValue(), ast.Constant(value=str(rest))]):
                yield from (f"{what}{rest}" for what in commits)


def _calls(tree: ast.AST, name: str) -> list[ast.Call]:
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and name == getattr(node.func, "attr", getattr(node.func, "id", ""))
    ]
