"""The whole life of runs under every fault that it is built for: real code, a real Postgres, a real Valkey.

Hypothesis is the user, the model, the tools, the clock and fate: it posts, edits, cancels and deletes, lets workers
go on step by step, and kills, stalls and cuts off whatever it likes. What must hold is looked at after every rule, and
once more when faults have stopped and all runs have come to their ends.

`RUN_MODEL_EXAMPLES=1000 pytest tests/integration/test_run_model.py` tries more; the examples are the same in every run
unless `RUN_MODEL_SEED` says otherwise.
"""

import asyncio
import dataclasses
import os
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar, cast
from uuid import UUID

import asyncpg
import hypothesis
import msgspec
import pytest
from hypothesis import HealthCheck
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from redis.asyncio import Redis

from api.auth import Principal, WorkspaceRole
from api.commands import cancel_run as cancel_module
from api.commands.begin_run import Begun
from api.commands.cancel_run import cancel_run
from api.commands.delete_conversation import delete_conversation
from api.commands.edit_message import edit_message
from api.commands.regenerate import regenerate
from api.commands.start_run import start_run
from api.limits.admission import Admission
from api.limits.seats import Seats
from api.relay import hub as hub_module
from api.relay.hub import Subject
from api.resources import Resources
from common.config import Settings
from common.errors import LeaseLost, ThroughlineError
from common.eventlog.keys import events_key, head_key
from common.eventlog.log import EventLog
from common.ids import new_id
from common.model.messages import Usage
from common.model.requests import NewAgent, NewConversation, NewMessage, Regeneration
from common.model.run_state import Priority
from common.redis import REDIS_DOWN, open_redis
from common.settle import CancelledBy, settle, tell_end
from common.store.agents import insert_agent
from common.store.catalogue import Offers, ProviderOffer, ToolOffer, upsert_offers
from common.store.conversations import insert_conversation
from common.store.database import DATABASE_DOWN, Pool, open_pool, workspace_transaction
from common.store.run_schedule import sweep_expired
from tests.support.run_model import (
    FAULTS,
    HARMLESS,
    TOOLS,
    Asking,
    Fault,
    HastyLoop,
    Killed,
    ModelWorker,
    Process,
    Record,
    SilentBell,
    Traffic,
    Using,
    WatchedHub,
    WatchedLog,
    WatchedPool,
    logged_errors,
    quiet,
)
from tests.support.run_model_checks import RECORDER, Ledger, Row
from tests.support.run_model_clients import ModelClient, View
from worker import recovery
from worker.providers.base import Finish, ProviderError, TextDelta, ToolCallDelta, UsageReport

EXAMPLES = int(os.environ.get("RUN_MODEL_EXAMPLES", "25"))
SEED = os.environ.get("RUN_MODEL_SEED")
SHRINKS = os.environ.get("RUN_MODEL_SHRINKS", "1") == "1"
STEPS = 50
T = TypeVar("T")

WHICH = st.integers(0, 7)
MOVE = st.tuples(
    WHICH,
    st.sampled_from(["says", "says", "calls", "calls", "ends", "breaks"]),
    st.lists(st.sampled_from(["pay", "pay", "book", "look"]), min_size=1, max_size=3),
)
REFUSED: list[Fault] = ["refused"]
SOME_FAULTS = st.lists(st.sampled_from(FAULTS), max_size=2)
AT_MOST_A_FAULT = st.sampled_from([*[None] * 8, *HARMLESS, "dies after"])


@dataclasses.dataclass
class World:
    """What all examples share."""

    runner: asyncio.Runner
    settings: Settings
    pool: Pool
    owner: asyncpg.Connection
    redis: Redis
    log: EventLog
    hub: WatchedHub
    relay: Process
    traffic: Traffic
    happened: Counter[str]
    errors: list[str]


EXPECTED = (
    *("OK", "LOST", "FENCED", "stalled", "killed", "waiting → queued", "running → running", "running → queued"),
    *("running → completed", "running → cancelled", "queued → cancelled", "waiting → cancelled"),
    *("at_most_once ok after 1", "at_most_once unknown after 1", "idempotent ok after 2", "read ok after 2"),
    *("postgres refused", "postgres undone", "postgres reply lost", "postgres dies after"),
    *("redis refused", "redis reply lost"),
)
"""What the examples must come to, or they show nothing."""


class RunModel(RuleBasedStateMachine):
    """Two conversations, two places for workers, one API, one relay and its clients."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.record = Record(world.traffic, world.happened)
        self.principal = Principal("alice", new_id(), WorkspaceRole.MEMBER, datetime.max.replace(tzinfo=UTC))
        self.ledger = Ledger(world.owner, self.principal.workspace_id, self.record)
        self.api = Process(self.record)
        self.agent_id = new_id()
        self.conversations: list[UUID] = []
        self.workers: list[ModelWorker] = []
        self.clients: list[ModelClient] = []
        self.memories: deque[View] = deque(maxlen=12)
        self.acknowledged: list[UUID] = []
        self.contents: dict[str, bool] = {}
        self.words = 0
        world.relay.record = self.record

    @initialize(acted=st.integers(0, len(TOOLS)))
    def begin(self, acted: int) -> None:
        """Each worker has a run in hand; of one, tools are under way, `acted` of which have had their effect."""

        async def insert() -> None:
            async with workspace_transaction(self.world.pool, self.principal.workspace_id) as connection:
                agent = NewAgent(name="brief", tools=list(TOOLS), max_steps=3)
                await insert_agent(connection, self.agent_id, agent, "alice")

        self.do(insert())
        self.conversations = [self.new_conversation(), self.new_conversation()]
        self.workers = [self.new_worker(), self.new_worker()]
        for which in range(2):
            self.post(which, "reject", True, None, False, which)
        self.let(self.places[0], "calls", list(TOOLS))
        for place in [place for place in self.places if isinstance(place, Using)][:acted]:
            self.let(place, "acts", [])

    # The user ------------------------------------------------------------------------------------------------

    @rule(
        which=WHICH,
        if_busy=st.sampled_from(["reject", *["enqueue"] * 3, "interrupt"]),
        runs=st.sampled_from([True, True, True, False]),
        fault=AT_MOST_A_FAULT,
        again=st.booleans(),
        heard_by=WHICH,
    )
    def post(self, which: int, if_busy: Any, runs: bool, fault: Fault | None, again: bool, heard_by: int) -> None:
        """With the same key as often as it takes; whoever is told of success finds it in the database."""
        content = self.word()
        new = NewMessage(content=content, run=runs, if_busy=if_busy)
        conversation_id = self.conversations[which % 2]

        def send(api: Resources) -> Awaitable[Begun]:
            return start_run(api, self.principal, conversation_id, new, content)

        self.contents[content] = self.accepted(send, fault, again)
        if heard_by < 6:
            self.claim(heard_by % 2)

    @rule(which=WHICH, if_busy=st.sampled_from(["reject", "interrupt"]), fault=AT_MOST_A_FAULT, again=st.booleans())
    def regenerate(self, which: int, if_busy: Any, fault: Fault | None, again: bool) -> None:
        key = self.word()
        for run in self.pick(self.ledger.rows, which):

            def send(api: Resources, run: Row = run) -> Awaitable[Begun]:
                change = Regeneration(if_busy=if_busy)
                return regenerate(api, self.principal, run.conversation_id, run.trigger_message_id, change, key)

            self.accepted(send, fault, again)

    @rule(which=WHICH, fault=AT_MOST_A_FAULT, signal_fault=st.booleans(), heard=st.booleans())
    def cancel(self, which: int, fault: Fault | None, signal_fault: bool, heard: bool) -> None:
        """The signal to the worker may be lost; a heartbeat finds the request."""
        for run in self.pick(self.unfinished, which):
            self.api.log_faults = deque(["refused"] if signal_fault else [])
            self.ask(partial(cancel_run, principal=self.principal, run_id=run.id), fault)
            if heard:
                self.do(self.hear_cancel(run.id))

    @rule(which=WHICH, what=st.sampled_from(["edit", "edit", "tell", "delete"]), fault=AT_MOST_A_FAULT)
    def meddle(self, which: int, what: str, fault: Fault | None) -> None:
        """A trigger is edited, a conversation deleted, an end told once more by somebody who finds it."""
        for run in self.pick(self.ledger.rows, which):
            of: dict[str, Any] = {"principal": self.principal, "conversation_id": run.conversation_id}
            if what == "edit":
                edit = partial(edit_message, **of, message_id=run.trigger_message_id, content=self.word())
                self.ask(edit, fault)
            elif what == "tell":
                self.ask(partial(self.tell_end_again, run=run), fault)
            elif run.conversation_id in self.conversations:
                self.ask(partial(delete_conversation, **of), fault)
                self.conversations.remove(run.conversation_id)
                self.conversations.append(self.new_conversation())

    # Models and tools ----------------------------------------------------------------------------------------

    @rule(moves=st.lists(MOVE, min_size=1, max_size=5))
    def go_on(self, moves: list[tuple[int, str, list[str]]]) -> None:
        """A model says something, or a tool acts or returns."""
        for which, what, tools in moves:
            for place in self.pick(self.places, which):
                self.let(place, what, tools)

    @rule(what=st.sampled_from(["says", "calls", "calls", "ends"]))
    def all_go_on(self, what: str) -> None:
        for place in self.places:
            self.let(place, what, list(TOOLS))

    # Workers -------------------------------------------------------------------------------------------------

    @rule(which=st.integers(0, 1))
    def claim(self, which: int) -> None:
        """A bell is heard, or the worker looks by itself."""
        self.try_to(self.worker(which).runs.answer_bell(Priority.INTERACTIVE))

    @rule(which=st.integers(0, 1))
    def heartbeat(self, which: int) -> None:
        self.try_to(self.worker(which).keeper._beat())

    @rule(which=WHICH, swept_by=WHICH, claimed_by=WHICH)
    def expire(self, which: int, swept_by: int, claimed_by: int) -> None:
        """A lease runs out, whatever its owner does: from here on that one may be a zombie."""
        for run in self.pick([row for row in self.ledger.rows if row.state == "running"], which):
            self.end_lease(run)
        if swept_by < 7:
            self.sweep(swept_by % 2)
        if claimed_by < 6:
            self.claim(claimed_by % 2)

    @rule(which=WHICH, how=st.sampled_from(["kill", "kill", "stall", "go on"]))
    def take_over(self, which: int, how: str) -> None:
        """In the middle of what a model or a tool does, another worker takes the run."""
        for place in self.pick(self.places, which):
            worker = place.worker
            owned = [row for row in self.unfinished if worker.is_owner_of(row.id, row.claimed_attempt or 0)]
            if how == "kill" and not worker.is_dead:
                worker.kill()
            elif how == "stall":
                worker.stall()
            for row in owned:
                self.end_lease(row)
            self.do(self.nothing())
            at = next((at for at in range(2) if self.worker(at) is not worker), 0)
            self.sweep(at)
            self.claim(at)

    def sweep(self, which: int) -> None:
        self.try_to(self.sweep_by(self.worker(which)))
        self.pass_time()

    # Faults --------------------------------------------------------------------------------------------------

    @rule(which=st.integers(0, 1), how=st.sampled_from(["kill", "stall", "stall", "drain", "drain at once"]))
    def strike(self, which: int, how: str) -> None:
        """A worker dies, stops, or is told to leave: at the end of each step, or at once."""
        worker = self.worker(which)
        if how == "kill":
            worker.kill()
            self.do(self.nothing())
        elif worker.is_stalled:
            pass
        elif how == "stall":
            worker.stall()
        else:
            self.do(worker.leave(600 if how == "drain" else 0))

    @rule(which=WHICH, aware=st.booleans())
    def resume(self, which: int, aware: bool) -> None:
        """A stalled worker goes on; its own clock has told it of the pause, or not yet."""

        async def go_on(worker: ModelWorker) -> None:
            if aware:
                worker.suspend()
            worker.go_on()

        for worker in self.pick([worker for worker in self.workers if worker.is_stalled], which):
            self.do(go_on(worker))

    @rule(
        which=st.integers(0, 1),
        faults=SOME_FAULTS,
        log_faults=st.lists(st.sampled_from(FAULTS), min_size=1, max_size=2),
    )
    def break_network(self, which: int, faults: list[Fault], log_faults: list[Fault]) -> None:
        """What will befall the worker's next transactions, and its next appends."""
        worker = self.worker(which)
        worker.faults, worker.log_faults = deque(faults), deque(log_faults)

    @rule(which=WHICH, what=st.sampled_from(["events", "head", "everything"]))
    def lose(self, which: int, what: str) -> None:
        """Redis forgets."""
        if what == "everything":
            for run in self.ledger.rows:
                self.record.forget(run.id, "events", "head")
            self.do(self.world.redis.flushall())
            return
        for run in self.pick(self.ledger.rows, which):
            self.record.forget(run.id, what)
            self.do(self.world.redis.delete(events_key(run.id) if what == "events" else head_key(run.id)))

    # Clients -------------------------------------------------------------------------------------------------

    @rule(which=WHICH, again=st.booleans())
    def join(self, which: int, again: bool) -> None:
        """A client comes for the first time, or with what it, or another, has seen at some time before."""
        views = [View(run.id) for run in self.pick(self.ledger.rows[-4:], which)]
        for view in self.pick(self.memories, which) if again else views:
            self.follow(view.copy())

    @rule(which=WHICH, what=st.sampled_from(["leaves", "stalls", "goes on"]))
    def hinder(self, which: int, what: str) -> None:
        for client in self.pick(self.clients, which):
            if what == "leaves":
                self.clients.remove(client)
                self.do(client.leave())
            else:
                (client.going.clear if what == "stalls" else client.going.set)()
                self.do(self.nothing())

    @rule(cut=st.booleans(), faults=st.lists(st.sampled_from(REFUSED), max_size=2))
    def poll(self, cut: bool, faults: list[Fault]) -> None:
        """The relay looks after silent runs, or loses its subscriptions."""
        if cut:
            self.do(self.world.redis.client_kill_filter(_type="pubsub"))
        else:
            self.world.relay.faults = deque(faults)
            self.try_to(self.world.hub._poll())

    # The end -------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        try:
            if self.conversations:
                self.finish()
        finally:
            self.world.runner.run(self.close())

    def finish(self) -> None:
        """Faults stop; every run comes to its end, and all say the same of it."""
        self.mend()
        for _ in range(40):
            if not self.unfinished:
                break
            self.work()
        assert not self.unfinished, f"never ended: {self.unfinished}"
        self.do(self.ledger.check_all(self.world.pool))
        self.do(self.check_posts())
        for _ in range(2):  # a run that has said something since the last poll is asked for at the next one
            self.do(self.world.hub._poll())
        for view in [View(row.id) for row in self.ledger.rows] + list(self.memories):
            self.follow(view)
        for _ in range(2):
            self.do(self.world.hub._poll())
        self.do(self.check_clients())

    def mend(self) -> None:
        async def go_on(process: Process) -> None:
            process.faults.clear()
            process.log_faults.clear()
            process.go_on()

        for process in [*self.workers, self.api, self.world.relay]:
            self.do(go_on(process))
        for client in self.clients:
            client.going.set()

    def work(self) -> None:
        """Everybody does what there is to do."""
        for worker in self.workers:
            if not worker.is_dead:
                self.do(worker.keeper._beat())
        for row in self.ledger.rows:
            owned = any(worker.is_owner_of(row.id, row.claimed_attempt or 0) for worker in self.workers)
            if row.state == "running" and not owned:
                self.end_lease(row)
        for which in range(2):
            self.do(self.sweep_by(self.worker(which)))
            self.pass_time()
            self.do(self.worker(which).runs.claim_due())
        for place in self.places:
            self.let(place, "ends", [])
            self.let(place, "ends", [])

    async def check_posts(self) -> None:
        """What was acknowledged is there, and nothing is there twice."""
        known = {row.id for row in self.ledger.rows}
        assert known.issuperset(self.acknowledged)
        for content, acknowledged in self.contents.items():
            assert await self.ledger.count_messages(content) in ((1,) if acknowledged else (0, 1)), content

    async def check_clients(self) -> None:
        """Whatever they have been through, clients and database agree."""
        terminals = {row.id: row.terminal_id for row in self.ledger.rows}
        for client in self.clients:
            view = client.view
            assert client.has_ended, f"the client of {view.run_id} waits at {view.cursor}"
            assert view.cursor == terminals[view.run_id]
            assert view.terminal == await self.ledger.terminal_event(view.run_id)
            assert view.answers == await self.ledger.answers(view.run_id)

    async def close(self) -> None:
        for worker in self.workers:
            if not worker.is_dead:
                worker.kill()
        for client in self.clients:
            await client.leave()
        await quiet(self.world.traffic, self.world.hub)
        await self.ledger.execute("delete from conversations where workspace_id = $1", self.principal.workspace_id)

    # Machinery -----------------------------------------------------------------------------------------------

    @property
    def unfinished(self) -> list[Row]:
        return [row for row in self.ledger.rows if not row.has_ended]

    @property
    def places(self) -> list[Asking | Using]:
        return [place for worker in self.workers for place in worker.places]

    def pick(self, some: Sequence[T], which: int) -> Sequence[T]:
        """One of them, if there is one. Rules have no preconditions: what is drawn depends on no server."""
        return [some[-1 - which % len(some)]] if some else []

    def word(self) -> str:
        self.words += 1
        return f"word-{self.words}"

    def worker(self, which: int) -> ModelWorker:
        """The one in this place: a new one, if the last one is dead or leaving; a stalled one may be left behind."""
        present = [worker for worker in self.workers if not worker.has_left]
        while len(present) < 2:
            present.append(self.new_worker())
            self.workers.append(present[-1])
        return present[-2:][which]

    def do(self, work: Awaitable[T]) -> T:
        """Does it, and waits until all that follows from it is done; then all must be as it should."""

        async def within_time() -> T:
            async with asyncio.timeout(20):
                try:
                    return await work
                finally:
                    await quiet(self.world.traffic, self.world.hub)
                    await self.ledger.look()

        result = self.world.runner.run(within_time())
        for client in self.clients:
            self.memories.extend(view for view in client.memories if view.cursor is not None)
            client.memories.clear()
        self.record.violations += self.world.errors
        assert not self.record.violations, self.record.violations
        return result

    def try_to(self, work: Awaitable[Any]) -> None:
        """What a process does in a loop of its own; it comes round again."""

        async def attempt() -> None:
            trying = asyncio.ensure_future(work)
            trying.add_done_callback(lambda done: done.cancelled() or done.exception())  # it may end much later
            await quiet(self.world.traffic, self.world.hub)  # a stalled one goes on when it is resumed
            if trying.done() and (error := trying.exception()) is not None:
                self.record.happened[type(error).__name__] += 1
                if not isinstance(error, (*DATABASE_DOWN, *REDIS_DOWN, LeaseLost)):
                    raise error

        self.do(attempt())

    def ask(self, call: Callable[[Resources], Awaitable[T]], fault: Fault | None = None) -> T | None:
        """A request to the API; None when it is refused, unanswered, or answered with 503."""
        if self.api.is_dead:
            self.api = Process(self.record)
        self.api.faults = deque([] if fault is None else [fault])
        world = self.world
        api = Resources(
            settings=world.settings,
            pool=WatchedPool(world.pool, self.api).as_pool,
            redis=world.redis,
            bell=SilentBell(world.redis),
            log=WatchedLog(world.redis, world.log, self.api),
            hub=world.hub,
            admission=Admission(world.settings, world.pool, world.redis, Seats()),
        )
        try:
            return self.do(call(api))
        except ThroughlineError as error:
            self.record.happened[error.code] += 1
        except (*DATABASE_DOWN, *REDIS_DOWN, Killed) as error:
            self.record.happened[f"503 {type(error).__name__}"] += 1
        return None

    def accepted(self, call: Callable[[Resources], Awaitable[Begun]], fault: Fault | None, again: bool) -> bool:
        """Whether the client knows that its request was carried out; it may have asked twice."""
        begun = self.ask(call, fault)
        if begun is None and again:
            begun = self.ask(call)
        if begun is not None and begun.run is not None:
            self.acknowledged.append(begun.run.id)
        return begun is not None

    def follow(self, view: View) -> None:
        [row] = [row for row in self.ledger.rows if row.id == view.run_id]
        if view.cursor is not None and row.terminal_id is not None and view.cursor >= row.terminal_id:
            return
        subject = Subject(self.principal.workspace_id, row.id, row.terminal_id)

        async def join() -> None:
            self.clients.append(ModelClient(self.world.hub, subject, view, self.record.violations))

        self.do(join())

    def let(self, place: Asking | Using, what: str, tools: list[str]) -> None:
        """The model or the tool goes on, if it is still there."""
        if place not in place.worker.places:
            return
        if isinstance(place, Asking):
            self.do(self.answer(place, what, tools))
        else:
            self.do(self.use(place, fails=what == "breaks"))

    async def tell_end_again(self, api: Resources, run: Row) -> None:
        if run.terminal_id is not None and run.terminal_id.n == 2:
            settled = await settle(api.pool, self.principal.workspace_id, run.id, CancelledBy(), by="api")
            assert settled is not None
            assert settled.event_id == run.terminal_id
            await tell_end(api.log, settled)

    async def answer(self, place: Asking, what: str, tools: list[str]) -> None:
        """The model's next words. Each of its pieces is there before the next one comes."""
        text = [TextDelta(self.word())] if what in ("says", "ends") or len(tools) > 1 else []
        match what:
            case "says":
                lines: list[Any] = text
            case "calls":
                deltas = [ToolCallDelta(at, f"call_{at}", name, "{}") for at, name in enumerate(tools)]
                lines = [*text, *deltas, UsageReport(Usage(input_tokens=7, output_tokens=3)), Finish("tool_calls")]
            case "ends":
                lines = [*text, UsageReport(Usage(input_tokens=5, output_tokens=2)), Finish("stop")]
            case _:
                lines = [ProviderError("overloaded", "busy", retry_after_s=0)]
        for line in lines:
            place.lines.put_nowait(line)

    async def use(self, place: Using, *, fails: bool) -> None:
        place.fails = fails
        (place.may_return if place.may_act.is_set() else place.may_act).set()

    async def hear_cancel(self, run_id: UUID) -> None:
        for worker in self.workers:
            if not worker.is_dead and not worker.is_stalled:
                worker.runs.cancel(run_id)

    def end_lease(self, row: Row) -> None:
        """As if its owner had been silent for too long."""
        past = "clock_timestamp() - interval '1 s'"
        statement = f"update runs set lease_until = {past} where id = $1 and state = 'running'"
        self.world.runner.run(self.ledger.execute(statement, row.id))

    async def sweep_by(self, worker: ModelWorker) -> None:
        """What every worker does each second."""
        await recovery._make_up(worker.resources, await sweep_expired(worker.pool, answering_s=0))

    def pass_time(self) -> None:
        """What waits for a moment to come need not wait."""
        statement = "update runs set available_at = clock_timestamp() where available_at > clock_timestamp()"
        self.world.runner.run(self.ledger.execute(f"{statement} and state = 'queued'"))

    async def nothing(self) -> None:
        """Gives everybody the time to do what they can."""

    def new_worker(self) -> ModelWorker:
        world = self.world

        async def make() -> ModelWorker:
            name = f"worker {len(self.workers)} {self.principal.workspace_id}"
            return ModelWorker(self.record, world.settings, world.pool, world.log, world.redis, name)

        return world.runner.run(make())

    def new_conversation(self) -> UUID:
        conversation_id = new_id()

        async def insert() -> None:
            async with workspace_transaction(self.world.pool, self.principal.workspace_id) as connection:
                new = NewConversation(agent_id=self.agent_id)
                await insert_conversation(connection, conversation_id, new, "alice")

        self.do(insert())
        return conversation_id


async def open_world(runner: asyncio.Runner, settings: Settings, happened: Counter[str], errors: list[str]) -> World:
    pool = await open_pool(settings, 24)
    owner = await asyncpg.connect(settings.database_url)
    await owner.execute(RECORDER)
    await upsert_offers(
        pool,
        "a worker",
        Offers(
            providers=[ProviderOffer(name="scripted", configured=True, models=["m"], default=True)],
            tools=[ToolOffer(name=t.name, description="", parameters={}, effect=t.effect) for t in TOOLS.values()],
        ),
    )
    redis = open_redis(settings.redis_url)
    log = EventLog(redis, settings.stream_ttl_s)
    traffic = Traffic()
    relay = Process(Record(traffic, happened))
    hub = WatchedHub(redis, WatchedPool(pool, relay).as_pool, WatchedLog(redis, log, relay))
    await hub.__aenter__()
    return World(runner, settings, pool, owner, redis, log, hub, relay, traffic, happened, errors)


async def close_world(world: World) -> None:
    await world.hub.__aexit__()
    await world.redis.aclose()
    await world.owner.close()
    await world.pool.close()


@pytest.mark.timeout(1800)  # as many examples as somebody asks for
def test_runs_under_every_fault_keep_all_promises(
    servers: Any, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever stalls, dies, is lost, refused or said twice: nothing is lost, nothing is doubled, all agree."""
    monkeypatch.setattr(hub_module, "_POLL_S", 3600.0)
    monkeypatch.setattr(cancel_module, "_WAIT_S", 0.0)
    settings = msgspec.structs.replace(settings, default_provider="scripted", default_model="m", lease_s=600)
    happened: Counter[str] = Counter()
    with asyncio.Runner(loop_factory=HastyLoop) as runner, logged_errors() as errors:
        world = runner.run(open_world(runner, settings, happened, errors))

        def new_model() -> RunModel:
            errors.clear()
            return RunModel(world)

        if SEED is not None:
            hypothesis.seed(int(SEED))(new_model)
        try:
            run_state_machine_as_test(
                cast("type[RuleBasedStateMachine]", new_model),
                settings=hypothesis.settings(
                    max_examples=EXAMPLES,
                    stateful_step_count=STEPS,
                    derandomize=SEED is None,
                    database=None,
                    print_blob=True,
                    report_multiple_bugs=False,
                    phases=[hypothesis.Phase.generate, *([hypothesis.Phase.shrink] if SHRINKS else [])],
                    suppress_health_check=list(HealthCheck),
                ),
            )
        finally:
            runner.run(close_world(world))
    missing = [what for what in EXPECTED if not happened[what]]
    assert not missing, f"the examples never came to {missing}: {happened}"
