"""One run, one armed process, one seam: what a client does there, and what must have come of it afterwards."""

import asyncio
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import httpx

from common.redis import open_redis
from tests.support.audit import audit, audit_watchers
from tests.support.eventually import eventually
from tests.support.failpoints import Failpoint
from tests.support.fake_model_server import FakeModelServer
from tests.support.planned_model import plan
from tests.support.processes import RunningProcess
from tests.support.servers import Servers
from tests.support.system import Client, System
from tests.support.watcher import Watcher

Action = Literal["exit", "raise", "block"]
LEASES = {"LEASE_S": "3", "HEARTBEAT_S": "0.5", "SWEEP_S": "0.2", "WORKER_DRAIN_S": "2"}
_PATIENCE_S = 60
_HEARTBEAT = "heartbeat.after"


class Expected(NamedTuple):
    """What has come of the (first) run: None where both are right.

    `outcome` is the one of its call and `effects` how often that took effect; `asked` counts the model's calls.
    """

    attempts: int | None = 1
    crashes: int | None = 0
    outcome: str | None = "ok"
    effects: int | None = 1
    asked: int | None = 2
    state: str = "completed"


class Scene:
    """A system of its own on servers that are shared, with the failpoints that one of its processes is armed with."""

    def __init__(self, system: System, redis_url: str, failpoints: tuple[Failpoint, ...]) -> None:
        self.system = system
        self._redis_url = redis_url
        self.failpoint = failpoints[0]
        self.watchers: list[Watcher] = []
        self._failpoints = failpoints
        self._armed: RunningProcess | None = None
        self._processes: list[RunningProcess] = []
        self._watching: list[asyncio.Task[Watcher]] = []

    @property
    def armed(self) -> RunningProcess:
        """The process that carries the failpoints."""
        assert self._armed is not None
        return self._armed

    async def arm_worker(self, *, heartbeat: bool = True) -> None:
        """The armed process is a worker; one that is to block beats no more either (`heartbeat`).

        It has room for one run, so that it is never the one that takes over from itself.
        """
        more = self._failpoints
        if self.failpoint.action == "block" and heartbeat and self.failpoint.name != _HEARTBEAT:
            more = (*more, Failpoint(_HEARTBEAT, "block", times=1000))  # another beat does not wait for it
        self._armed = self._note(await self.system.worker(*more, **LEASES, WORKER_MAX_RUNS="1"))

    async def arm_api(self, client: Client) -> Client:
        """The armed process is an API; `client`'s way to it."""
        self._armed = self._note(await self.system.api(*self._failpoints))
        return await self.system.client(self._armed, client.workspace_id)

    async def worker(self) -> RunningProcess:
        """A worker without failpoints."""
        return self._note(await self.system.worker(**LEASES))

    async def client(self) -> Client:
        """Somebody at an API without failpoints."""
        return await self.system.client(self._note(await self.system.api()))

    def _note(self, process: RunningProcess) -> RunningProcess:
        self._processes.append(process)
        return process

    def watch(self, client: Client, run: dict[str, Any]) -> Watcher:
        """Watches the run from now on."""
        watcher = Watcher([client], run)
        self.watchers.append(watcher)
        self._watching.append(asyncio.create_task(watcher.watch(_PATIENCE_S)))
        return watcher

    async def flush_redis(self) -> None:
        """Empties this scene's Redis database."""
        redis = open_redis(self._redis_url)
        await redis.flushdb()
        await redis.aclose()

    async def fired(self) -> None:
        """Returns once the failpoint has acted, and a process that it kills is dead."""
        await self.system.failpoints.wait_until_fired(self.failpoint.name)
        if self.failpoint.action == "exit":
            assert await self.armed.child.wait(10) == -signal.SIGKILL

    async def ends(self) -> None:
        """Returns once all that is watched has ended for its watchers."""
        await asyncio.gather(*self._watching)

    async def let_go(self) -> None:
        """What is blocked goes on, as a zombie or not, and is done when this returns."""
        for name in {failpoint.name for failpoint in self._failpoints} | {_HEARTBEAT}:
            self.system.failpoints.let_go(name)
        assert await self.armed.stop() == 0, self.armed.output()

    async def close(self) -> None:
        """Watches no longer."""
        for task in self._watching:
            task.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)

    async def problems(self, expected: Expected) -> list[str]:
        """What is wrong with the database, the effects, the clients' stories and the first run."""
        row = (
            await self.system.rows(
                """
                select attempt as attempts, crashes_total as crashes, state,
                       (select count(*) from model_calls c where c.run_id = r.id) as asked,
                       (select outcome from tool_calls t where t.run_id = r.id) as outcome
                from runs r order by created_at, id limit 1
                """
            )
        )[0]
        found = Expected(**row, effects=len(self.system.effects_noted()))
        wrong = [
            f"{field}: {is_!r}, not {wanted!r}"
            for field, is_, wanted in zip(Expected._fields, found, expected, strict=True)
            if wanted is not None and is_ != wanted
        ]
        fired = self.system.failpoints.fired(self.failpoint.name)
        wrong += [f"{self.failpoint.name} fired {fired} times"] * (not 1 <= fired <= self.failpoint.times)
        return [*wrong, *await audit(self.system), *await audit_watchers(self.system, self.watchers)]

    async def description(self) -> list[str]:
        """What else helps to understand what happened."""
        runs = await self.system.rows("select *, clock_timestamp() as now from runs")
        return [
            *(f"row: {dict(run)}" for run in runs),
            *(f"seen: {[(seen.frame.id, seen.frame.text) for seen in watcher.seen]}" for watcher in self.watchers),
            *(process.output() for process in self._processes),
        ]


Story = Callable[[Scene], Awaitable[None]]


class Seam(NamedTuple):
    """A failpoint, what it does there, what happens around it, and what must have come of it."""

    name: str
    action: Action
    story: Story
    expected: Expected = Expected()
    on: int = 1
    times: int = 1
    after: tuple[Failpoint, ...] = ()
    smoke: bool = False
    note: str = ""

    @property
    def id(self) -> str:
        """Its name in the report."""
        note = self.note or self.story.__name__
        return f"{self.name}-{self.action}-{note}" + (f"-{self.on}" if self.on > 1 else "")


@asynccontextmanager
async def scene(
    servers: Servers, models: FakeModelServer, redis_url: str, failpoints: tuple[Failpoint, ...]
) -> AsyncIterator[Scene]:
    """A database of its own, and a Redis database that nobody else uses meanwhile."""
    url = await servers.create_database()
    try:
        async with AsyncExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="throughline-seam-")))
            processes = await stack.enter_async_context(AsyncExitStack())
            system = System(servers, models, processes, folder, url, redis_url=redis_url, forked=True)
            made = Scene(system, redis_url, failpoints)
            stack.push_async_callback(made.close)
            await made.flush_redis()
            yield made
    finally:
        await servers.drop_database(url)


# What happens around the seams of a worker ----------------------------------------------------------------------


def calls(tool: str) -> Story:
    """A run with one call of `tool`; whoever dies, or stands still for longer than its lease, is taken over from."""

    async def story(scene: Scene) -> None:
        await _play(scene, plan(steps=1, tools=tool, words=5, pause_ms=20))

    story.__name__ = tool
    return story


async def slow_answer(scene: Scene) -> None:
    """As before, with an answer that takes longer than a lease and comes before the call."""
    await _play(scene, plan(steps=1, tools="charge", words=100, pause_ms=50))


async def amid(scene: Scene) -> None:
    """What stood still goes on while another has the run in hand, and does not hear of that by a heartbeat."""
    client = await scene.client()
    await scene.arm_worker(heartbeat=scene.failpoint.name != "claim.after")
    model = plan(steps=1, tools="charge", words=40, pause_ms=50)
    watcher = scene.watch(client, await client.start("go", provider="anthropic", model=model))
    await scene.fired()
    await scene.worker()
    await eventually(lambda: (watcher.cursor or "").rpartition(":")[2].startswith("2-"), _PATIENCE_S)
    scene.system.failpoints.let_go(scene.failpoint.name)
    await eventually(lambda: "lease_lost" in scene.armed.output(), _PATIENCE_S)
    await scene.ends()
    await scene.let_go()


async def lost_log(scene: Scene) -> None:
    """The log of the run is lost while the model speaks."""
    client = await scene.client()
    await scene.arm_worker()
    run = await client.start("go", provider="anthropic", model=plan(steps=1, tools="charge", words=30, pause_ms=30))
    watcher = scene.watch(client, run)
    await eventually(lambda: "token" in [event["type"] for event in watcher.events], 20)
    await scene.flush_redis()
    await _go_on(scene)


async def drain(scene: Scene) -> None:
    """The worker is asked to leave while the model speaks."""
    client = await scene.client()
    await scene.arm_worker()
    run = await client.start("go", provider="anthropic", model=plan(steps=1, tools="charge", words=10, pause_ms=30))
    watcher = scene.watch(client, run)
    await eventually(lambda: "token" in [event["type"] for event in watcher.events], 20)
    scene.armed.child.send(signal.SIGTERM)
    await _go_on(scene, drained=True)


async def next_run(scene: Scene) -> None:
    """Another run waits for the end of this one."""
    client = await scene.client()
    await scene.arm_worker()
    model = plan(steps=1, tools="charge", words=10, pause_ms=20)
    run = await client.start("go", provider="anthropic", model=model)
    scene.watch(client, run)
    scene.watch(
        client,
        await client.post(run["conversationId"], "go on", provider="anthropic", model=plan(words=3), ifBusy="enqueue"),
    )
    await _go_on(scene)


async def cancelled_after_a_crash(scene: Scene) -> None:
    """A run is asked to end whose worker has just died: the armed worker's sweep is to end it."""
    client, run = await _crash(scene)
    await client.http.post(f"/v1/runs/{run['id']}/cancel")
    await _go_on(scene)


async def crashed(scene: Scene) -> None:
    """A run's worker has just died: the armed worker's sweep is to find it."""
    await _crash(scene)
    await _go_on(scene)


async def not_promoted(scene: Scene) -> None:
    """A run waits, and nothing runs before it: the armed worker's sweep is to find it."""
    client = await scene.client()
    offering = await scene.worker()
    await offering.stop()
    run = await client.start("go", provider="anthropic", model=plan(steps=1, tools="charge", words=3))
    scene.watch(client, run)
    await scene.system.rows("update runs set state = 'paused'")
    await scene.arm_worker(heartbeat=False)
    await scene.system.rows("update runs set state = 'waiting'")
    await _go_on(scene)


async def _play(scene: Scene, model: str) -> None:
    client = await scene.client()
    await scene.arm_worker(heartbeat=scene.failpoint.name != "claim.after")
    scene.watch(client, await client.start("go", provider="anthropic", model=model))
    await _go_on(scene)


async def _go_on(scene: Scene, *, drained: bool = False) -> None:
    await scene.fired()
    if scene.failpoint.action != "raise" or drained:
        await scene.worker()
    await scene.ends()
    if scene.failpoint.action == "block":
        await scene.let_go()


async def _crash(scene: Scene) -> tuple[Client, dict[str, Any]]:
    client = await scene.client()
    first = await scene.worker()
    run = await client.start("go", provider="anthropic", model=plan(steps=1, tools="charge", words=50, pause_ms=100))
    watcher = scene.watch(client, run)
    await eventually(lambda: "token" in [event["type"] for event in watcher.events], 20)
    await scene.arm_worker(heartbeat=False)
    await first.stop(signal.SIGKILL)
    return client, run


# What happens around the seams of an API ------------------------------------------------------------------------


async def post(scene: Scene) -> None:
    """A message is posted; the client that hears nothing of it posts it again, with the same key, to another API."""
    client = await scene.client()
    await scene.worker()
    conversation = await client.conversation()
    body = {"content": "go", **_CHARGES}
    answers = await _ask_twice(scene, client, "POST", f"/v1/conversations/{conversation}/messages", body)
    runs = {answer.json()["run"]["id"] for answer in answers if answer.status_code == 202}
    assert len(runs) == 1, answers
    await _ends_as_one_run(scene, client)


async def post_chat(scene: Scene) -> None:
    """The AI SDK's client posts a message; when the answer breaks off it posts the same again, to another API."""
    client = await scene.client()
    await scene.worker()
    message = {"id": "the-message", "role": "user", "parts": [{"type": "text", "text": "go"}]}
    body = {"id": "the-chat", "trigger": "submit-message", "messages": [message], **_CHARGES}
    answers = await _ask_twice(scene, client, "POST", "/ai/chat", body)
    assert 200 in [answer.status_code for answer in answers], answers
    await _ends_as_one_run(scene, client)


async def respond(scene: Scene) -> None:
    """OpenAI's client asks for a response, and asks again with the same key."""
    client = await scene.client()
    await scene.worker()
    body = {"input": "go", "background": True, "model": "{provider}/{model}".format(**_CHARGES)}
    answers = await _ask_twice(scene, client, "POST", "/openai/v1/responses", body)
    assert len({answer.json()["id"] for answer in answers if answer.is_success}) == 1, answers
    await _ends_as_one_run(scene, client)


_CHARGES = {"provider": "anthropic", "model": plan(steps=1, tools="charge", words=3)}


async def _ends_as_one_run(scene: Scene, client: Client) -> None:
    [run] = await scene.system.rows("select id from runs")
    scene.watch(client, await client.run({"id": run["id"]}))
    await scene.ends()
    [counted] = await scene.system.rows("select count(*) from messages where role = 'user'")
    assert counted["count"] == 1


async def regenerate(scene: Scene) -> None:
    """A turn is answered anew."""
    client = await scene.client()
    await scene.worker()
    run = await client.start("go", provider="anthropic", model=plan(steps=1, tools="charge", words=3))
    scene.watch(client, run)
    await scene.ends()
    path = f"/v1/conversations/{run['conversationId']}/messages/{run['triggerMessageId']}/regenerate"
    answers = await _ask_twice(scene, client, "POST", path, {"provider": "anthropic", "model": plan(words=3)})
    runs = {answer.json()["run"]["id"] for answer in answers if answer.status_code == 202}
    assert len(runs) == 1, answers
    scene.watch(client, next(answer for answer in answers if answer.status_code == 202).json()["run"])
    await scene.ends()
    assert [row["count"] for row in await scene.system.rows("select count(*) from runs")] == [2]


async def edit(scene: Scene) -> None:
    """A message is edited."""
    client = await scene.client()
    await scene.worker()
    run = await client.start("go", provider="anthropic", model=plan(steps=1, tools="charge", words=3))
    scene.watch(client, run)
    await scene.ends()
    path = f"/v1/conversations/{run['conversationId']}/messages/{run['triggerMessageId']}"
    answers = await _ask_twice(scene, client, "PUT", path, {"content": "gone"})
    assert 200 in [answer.status_code for answer in answers]
    edited = [message.get("editedContent") for message in await client.messages(run)]
    assert edited[0] == "gone"


async def delete(scene: Scene) -> None:
    """A conversation is deleted while its run goes on."""
    client = await scene.client()
    await scene.worker()
    run = await client.start("go", provider="anthropic", model=plan(words=200, pause_ms=50))
    await client.state_is(run, "running")
    path = f"/v1/conversations/{run['conversationId']}"
    answers = await _ask_twice(scene, client, "DELETE", path, None)
    assert {answer.status_code for answer in answers} <= {204, 404, 503}
    await _ended(scene)
    assert (await client.http.get(path)).status_code == 404


async def cancel(scene: Scene) -> None:
    """A run is asked to end while its worker has it in hand."""
    client = await scene.client()
    await scene.worker()
    run = await client.start("go", provider="anthropic", model=plan(words=200, pause_ms=50))
    scene.watch(client, run)
    await client.state_is(run, "running")
    await _ask_twice(scene, client, "POST", f"/v1/runs/{run['id']}/cancel", None)
    await scene.ends()


async def cancel_queued(scene: Scene) -> None:
    """A run is asked to end that no worker has begun."""
    client = await scene.client()
    offering = await scene.worker()
    await offering.stop()
    run = await client.start("go", provider="anthropic", model=plan(words=3))
    scene.watch(client, run)
    await _ask_twice(scene, client, "POST", f"/v1/runs/{run['id']}/cancel", None)
    await scene.ends()


async def _ended(scene: Scene) -> None:
    await scene.system.all_ended(20)


async def _ask_twice(
    scene: Scene, client: Client, method: str, path: str, body: dict[str, Any] | None
) -> list[httpx.Response]:
    """Asks the armed API, then, unless that has answered well, another one, with the same key. What they said.

    What needs no answer (without a `body`) and is committed, is to happen although nobody asks again.
    """
    key = {"idempotency-key": "the-same"}
    armed = await scene.arm_api(client)
    first = asyncio.create_task(_ask(armed, method, path, body, key))
    await scene.fired()
    if scene.failpoint.action != "block":
        answer = await first
        assert answer is None or scene.failpoint.action == "raise"
        if answer is not None and answer.is_success:
            return [answer]
        if answer is not None:
            assert (answer.status_code, "retry-after" in answer.headers) == (503, True), answer.text
        if body is None and scene.failpoint.name != "request.before_commit":
            return []
        return await _insist(client, method, path, body, key)
    second = asyncio.create_task(_insist(client, method, path, body, key))
    await asyncio.wait({second}, timeout=0.5)  # With a transaction open over there, it waits.
    scene.system.failpoints.let_go(scene.failpoint.name)
    answer = await first
    assert answer is not None
    return [answer, *await second]


async def _insist(
    client: Client, method: str, path: str, body: dict[str, Any] | None, key: dict[str, str]
) -> list[httpx.Response]:
    answer = await _ask(client, method, path, body, key)
    assert answer is not None, "the other API is well"
    return [answer]


async def _ask(
    client: Client, method: str, path: str, body: dict[str, Any] | None, key: dict[str, str]
) -> httpx.Response | None:
    try:
        return await client.http.request(method, path, json=body, headers=key)
    except httpx.TransportError:
        return None
