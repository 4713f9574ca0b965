"""Processes of the run model: the product's own code, whose every word with a server passes a gate of the model's.

At a gate a process may be refused, lose a reply, stall (and go on as a zombie) or die. A dead one says no more: its
transaction is rolled back, its tasks unwind without reaching a server.
"""

import asyncio
import sys
from collections import Counter, deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, cast
from uuid import UUID

import asyncpg
import structlog
from redis.asyncio import Redis
from redis.exceptions import ConnectionError

from api.relay.hub import Hub
from common.config import Settings
from common.errors import LeaseLost
from common.eventlog.log import AppendResult, Batch, EventLog, LogEvent
from common.ids import EventId
from common.model.run_state import Effect, Priority
from common.queue import Bell
from common.store.database import Pool
from tests.support.model_history_rules import find_violation
from tests.support.worker_life import worker_resources
from worker.job import RunningRuns
from worker.providers import anthropic_request, chat_request, openai_request
from worker.providers.base import Finish, ModelRequest, ProviderError, ProviderEvent
from worker.run.commit import finish_even_if_cancelled
from worker.run.lease import LeaseKeeper
from worker.tools.base import Tool, ToolContext, ToolError, tool

Fault = Literal["refused", "undone", "reply lost", "dies before", "dies after", "stalls before", "stalls after"]
FAULTS: tuple[Fault, ...] = (
    "refused",
    "undone",
    "reply lost",
    "dies before",
    "dies after",
    "stalls before",
    "stalls after",
)
HARMLESS: tuple[Fault, ...] = ("refused", "undone", "reply lost")
"""Those that a process outlives without a pause. `undone`: a transaction that is rolled back at its end."""


class Killed(LeaseLost):
    """What a dead process gets for an answer; as for a lost lease, the product says no more."""


class HastyLoop(asyncio.SelectorEventLoop):
    """A loop in which a pause between two tries lasts no time."""

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Any, *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        """asyncio.sleep is the one that sets a result; limits of time stay as they are."""
        if delay <= 1 and callback is asyncio.futures._set_result_unless_cancelled:  # type: ignore[attr-defined]
            delay = min(delay, 0.0003)
        return super().call_later(delay, callback, *args, context=context)

    @property
    def is_calm(self) -> bool:
        """Nobody but the caller has anything to do before a server answers or a limit is reached."""
        state = cast(Any, self)
        soon = self.time() + 0.002
        return not state._ready and not any(timer.when() < soon and not timer.cancelled() for timer in state._scheduled)


class Traffic:
    """What is on its way to a server and back: one at a time, so that the same comes first in every run."""

    def __init__(self) -> None:
        self.sent = 0
        self._busy = 0
        self._turn = asyncio.Lock()
        self.calm = asyncio.Event()
        self.calm.set()

    @asynccontextmanager
    async def under_way(self) -> AsyncIterator[None]:
        """Until the answer has come."""
        self.sent += 1
        self._change(+1)
        try:
            async with self._turn:
                yield
        finally:
            self._change(-1)

    @asynccontextmanager
    async def held_up(self) -> AsyncIterator[None]:
        """While one that is under way waits at a gate; others pass it."""
        self._turn.release()
        self._change(-1)
        try:
            yield
        finally:
            self._change(+1)
            await finish_even_if_cancelled(self._take_turn())

    async def _take_turn(self) -> None:
        await self._turn.acquire()

    def _change(self, by: int) -> None:
        self._busy += by
        (self.calm.clear if self._busy else self.calm.set)()


@dataclass
class Record:
    """What all processes of one example did; `violations` because an assertion inside a task would be lost."""

    traffic: Traffic
    happened: Counter[str]
    violations: list[str] = field(default_factory=list)
    effects: list["Deed"] = field(default_factory=list)
    requests: list[UUID] = field(default_factory=list)
    named: dict[tuple[UUID, EventId], bytes] = field(default_factory=dict)
    newest: dict[UUID, int] = field(default_factory=dict)
    lost: dict[UUID, set[str]] = field(default_factory=dict)

    def check_names(self, run_id: UUID, batch: Batch) -> None:
        """An id never names anything else, however often it is sent, whatever was lost."""
        for n, data in enumerate(batch.events, batch.first_n):
            name = EventId(batch.attempt, n)
            known = self.named.setdefault((run_id, name), data)
            if known != data:
                self.violations.append(f"{name} of {run_id} names two events: {known!r} and {data!r}")

    def check_fence(self, run_id: UUID, batch: Batch, result: AppendResult) -> None:
        """While Redis keeps its memory of it, nothing of an older attempt gets in after a newer one."""
        self.happened[result.name] += 1
        if result is AppendResult.OK:
            if batch.attempt < self.newest.get(run_id, 0):
                self.violations.append(f"attempt {batch.attempt} of {run_id} got in after {self.newest[run_id]}")
            self.newest[run_id] = batch.attempt
            self.lost.pop(run_id, None)

    def forget(self, run_id: UUID, *keys: str) -> None:
        """Redis lost keys of the run. One of the two is enough to keep older attempts out."""
        lost = self.lost.setdefault(run_id, set())
        lost.update(keys)
        if lost == {"events", "head"}:
            self.newest.pop(run_id, None)


class Deed(NamedTuple):
    """An effect on the world."""

    tool: str
    effect: Effect
    run_id: UUID
    call_id: str
    key: str


class Process:
    """Something that may stall or die. `faults` befall its next transactions, `log_faults` its next appends."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.faults: deque[Fault] = deque()
        self.log_faults: deque[Fault] = deque()
        self.is_dead = False
        self._going = asyncio.Event()
        self._going.set()

    @property
    def is_stalled(self) -> bool:
        return not self._going.is_set()

    def stall(self) -> None:
        """As SIGSTOP: nothing passes a gate until `go_on`."""
        self.record.happened["stalled"] += 1
        self._going.clear()

    def go_on(self) -> None:
        """As SIGCONT."""
        self._going.set()

    def kill(self) -> None:
        """As SIGKILL."""
        self.record.happened["killed"] += 1
        self.is_dead = True
        self._going.set()

    async def gate(self) -> None:
        """Waits while the process is stalled. Raises Killed once it is dead."""
        while not self._going.is_set() and not self.is_dead:
            await self._going.wait()
        if self.is_dead:
            raise Killed

    async def hold_up(self) -> None:
        """Stalls at a gate, while something is under way."""
        self.stall()
        async with self.record.traffic.held_up():
            await self.gate()

    async def vanish(self) -> None:
        """What becomes of an append whose process is dead."""
        raise Killed


class WatchedPool:
    """The real pool behind the gates of one process."""

    def __init__(self, pool: Pool, process: Process) -> None:
        self._pool = pool
        self._process = process

    @property
    def as_pool(self) -> Pool:
        return cast(Pool, self)

    def is_closing(self) -> bool:
        return False

    async def acquire(self) -> "_WatchedConnection":
        """A connection for one transaction."""
        fault = await self._enter()
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._process.record.traffic.under_way())
            connection = await stack.enter_async_context(self._pool.acquire())
            return _WatchedConnection(connection, self._process, fault, stack.pop_all())

    async def release(self, connection: "_WatchedConnection") -> None:
        """Gives it back."""
        await connection.place.aclose()

    async def fetch(self, statement: str, *arguments: Any) -> Any:
        """A query that is a transaction of its own."""
        fault = await self._enter()
        async with self._process.record.traffic.under_way():
            return await _commit(self._process, fault, lambda: self._pool.fetch(statement, *arguments), _nothing)

    async def _enter(self) -> Fault | None:
        process = self._process
        await process.gate()
        fault = process.faults.popleft() if process.faults else None
        if fault is not None:
            process.record.happened[f"postgres {fault}"] += 1
        if fault == "stalls before":
            process.stall()
            await process.gate()
        if fault == "refused":
            raise ConnectionRefusedError("nobody listens")
        return fault


class _WatchedConnection:
    """Looks at every statement of one transaction, and at the run that it writes to."""

    def __init__(self, connection: Any, process: Process, fault: Fault | None, place: AsyncExitStack) -> None:
        self.place = place
        self._connection = connection
        self._process = process
        self._fault = fault
        self._held: tuple[UUID, int] | None = None
        self._wrote = ""
        self._ended = False

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self._connection, name)

        async def execute(statement: str, *arguments: Any, **options: Any) -> Any:
            if statement == "commit":
                return await _commit(self._process, self._fault, self._commit_checked, self._undo)
            if self._process.is_dead and statement != "rollback":
                raise Killed
            self._note(statement, arguments)
            return await method(statement, *arguments, **options)

        return execute

    def _note(self, statement: str, arguments: tuple[Any, ...]) -> None:
        words = " ".join(statement.split())
        if "update runs set lease_until = clock_timestamp() + $3" in words:
            self._held = (arguments[0], arguments[1])
        for table in ("messages", "tool_calls", "model_calls"):
            if f"insert into {table} " in words:
                self._wrote = table
        self._ended = self._ended or "terminal_event = $9" in words

    async def _commit_checked(self) -> None:
        if self._held is not None and self._wrote and not self._ended:
            run_id, attempt = self._held
            row = await self._connection.fetchrow("select attempt, state from runs where id = $1", run_id)
            if tuple(row) != (attempt, "running"):
                self._process.record.violations.append(f"attempt {attempt} wrote {self._wrote} into {tuple(row)}")
        await self._connection.execute("commit")

    async def _undo(self) -> None:
        await self._connection.execute("rollback")


async def _commit(
    process: Process, fault: Fault | None, commit: Callable[[], Awaitable[Any]], undo: Callable[[], Awaitable[None]]
) -> Any:
    if process.is_dead or fault == "dies before":
        await undo()
        if not process.is_dead:
            process.kill()
        raise Killed
    if fault == "undone":
        await undo()
        raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")
    answer = await commit()
    if fault == "dies after":
        process.kill()
    elif fault == "stalls after":
        await process.hold_up()
    elif fault == "reply lost":
        raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")
    if process.is_dead:
        raise Killed
    return answer


async def _nothing() -> None:
    pass


class WatchedLog(EventLog):
    """The real log behind the gates of one process."""

    def __init__(self, redis: Redis, real: EventLog, process: Process) -> None:
        super().__init__(redis, stream_ttl_s=600)
        # All share one log, and so one connection: replies are seen in the order in which the script ran.
        self._real = real
        self._process = process

    async def append(self, run_id: UUID, batch: Batch, *, trim: bool = False) -> AppendResult:
        process = self._process
        record = process.record
        await self._pass()
        fault = process.log_faults.popleft() if process.log_faults else None
        if fault is not None:
            record.happened[f"redis {fault}"] += 1
        if fault == "stalls before":
            process.stall()
            await self._pass()
        elif fault in ("refused", "undone"):
            raise ConnectionError(fault)
        elif fault == "dies before":
            process.kill()
            await process.vanish()
        record.check_names(run_id, batch)
        async with record.traffic.under_way():
            result = await self._real.append(run_id, batch, trim=trim)
            record.check_fence(run_id, batch, result)
            if fault == "stalls after":
                process.stall()
                async with record.traffic.held_up():
                    await self._pass()
            elif fault == "reply lost":
                raise ConnectionError(fault)
        if fault == "dies after":
            process.kill()
        if process.is_dead:
            await process.vanish()
        return result

    async def read_after(self, run_id: UUID, after: EventId | None, limit: int) -> list[LogEvent]:
        async with self._process.record.traffic.under_way():
            return await self._real.read_after(run_id, after, limit)

    async def head(self, run_id: UUID) -> EventId | None:
        async with self._process.record.traffic.under_way():
            return await self._real.head(run_id)

    async def _pass(self) -> None:
        try:
            await self._process.gate()
        except Killed:
            await self._process.vanish()


class Asking:
    """A request that a model has not finished answering."""

    def __init__(self, run_id: UUID, request: ModelRequest, worker: "ModelWorker") -> None:
        self.run_id = run_id
        self.request = request
        self.worker = worker
        self.lines: asyncio.Queue[ProviderEvent | ProviderError] = asyncio.Queue()


class Using:
    """A tool that was called and has not answered: first it waits to act, then to return."""

    def __init__(self, worker: "ModelWorker") -> None:
        self.worker = worker
        self.may_act = asyncio.Event()
        self.may_return = asyncio.Event()
        self.fails = False


class ModelWorker(Process):
    """A worker process: the real claims, executions and leases, a model and tools that wait for the machine."""

    name = "scripted"

    def __init__(self, record: Record, settings: Settings, pool: Pool, log: EventLog, redis: Redis, owner: str) -> None:
        super().__init__(record)
        self.places: list[Asking | Using] = []
        self.leaving: asyncio.Task[None] | None = None
        self.leaving_cut = False
        self.pool = WatchedPool(pool, self).as_pool
        self.keeper = LeaseKeeper(self.pool, owner, settings, self.pool)
        tools = {name: _bound(self, model) for name, model in TOOLS.items()}
        self.resources = replace(
            worker_resources(settings, self.pool, redis, self, tools),
            owner=owner,
            keeper=self.keeper,
            log=WatchedLog(redis, log, self),
            bell=SilentBell(redis),
        )
        self.runs = RunningRuns(self.resources)

    @property
    def has_left(self) -> bool:
        """Whether it claims no more."""
        return self.is_dead or self.leaving is not None

    def kill(self) -> None:
        super().kill()
        for task in list(self.runs._tasks):
            task.cancel()
        if self.leaving is not None:
            self.leaving.cancel()

    async def leave(self, grace_s: float) -> None:
        """As SIGTERM."""
        self.leaving = asyncio.create_task(self.runs.drain(grace_s))

    def is_owner_of(self, run_id: UUID, claimed_attempt: int) -> bool:
        """Whether it holds this claim, and lives."""
        lease = self.keeper._leases.get(run_id)
        return not self.is_dead and lease is not None and lease.claimed_attempt == claimed_attempt

    def suspend(self) -> None:
        """What its own clock does after a long pause."""
        for lease in list(self.keeper._leases.values()):
            lease._suspend()

    async def vanish(self) -> None:
        """Its sink is cancelled while it waits for an answer."""
        await asyncio.Event().wait()

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ProviderEvent, None]:
        """The model: says what the machine lets it say."""
        task = asyncio.current_task()
        assert task is not None
        asking = Asking(UUID(task.get_name().removeprefix("loop ")), request, self)
        self.record.requests.append(asking.run_id)
        self.record.violations += history_violations(request)
        self.places.append(asking)
        try:
            while True:
                line = await asking.lines.get()
                await self.gate()
                if isinstance(line, ProviderError):
                    raise line
                yield line
                if isinstance(line, Finish):
                    return
        finally:
            self.places.remove(asking)

    async def close(self) -> None:
        """There is nothing to free."""

    async def act(self, model: Tool, context: ToolContext) -> str:
        """A tool: waits, has its effect, waits, answers."""
        lease = self.keeper._leases.get(context.run_id)
        if lease is not None and lease.attempt == context.attempt and not lease.active.is_set():
            self.record.violations.append(f"{model.name} began while its run was suspended")
        using = Using(self)
        self.places.append(using)
        try:
            await using.may_act.wait()
            await self.gate()
            deed = Deed(model.name, model.effect, context.run_id, context.tool_call_id, context.idempotency_key)
            self.record.effects.append(deed)
            await using.may_return.wait()
            await self.gate()
            if using.fails:
                raise ToolError("it did not work")
            return f"{model.name} worked"
        finally:
            self.places.remove(using)


class SilentBell(Bell):
    """Every bell is lost: who claims what is the machine's to say."""

    async def ring(self, run_id: UUID, priority: Priority) -> None:
        pass


@tool(effect=Effect.READ)
async def look() -> str:
    """May run as often as it likes."""
    raise NotImplementedError


@tool(effect=Effect.IDEMPOTENT)
async def book() -> str:
    """May run again with its key."""
    raise NotImplementedError


@tool(effect=Effect.AT_MOST_ONCE)
async def pay() -> str:
    """Must not run again."""
    raise NotImplementedError


TOOLS = {model.name: model for model in (look, book, pay)}


def _bound(worker: ModelWorker, model: Tool) -> Tool:
    return replace(model, _run=lambda _, context: worker.act(model, context))


class WatchedHub(Hub):
    """A relay that says when it has heard all that was published."""

    ECHO = b"run-model:echo"

    def __init__(self, redis: Redis, pool: Pool, log: EventLog) -> None:
        super().__init__(redis, pool, log)
        self._echo = 0
        self._heard = 0
        self._connection = redis
        self._subscriber.subscribe(self.ECHO)

    @property
    def is_settled(self) -> bool:
        """Whether Redis knows all channels that it wants."""
        subscriber = self._subscriber
        known = subscriber._sent == subscriber._wanted and not subscriber._unconfirmed and not subscriber._dirty
        return subscriber._serving and known

    async def hear_all(self) -> None:
        """Waits until what was published before has been delivered."""
        while not self.is_settled:
            await asyncio.sleep(0.0002)
        self._echo += 1
        await self._connection.publish(self.ECHO.decode(), self._echo)
        while self._heard < self._echo and self.is_settled:
            await asyncio.sleep(0.0001)

    def _deliver(self, channel: bytes, data: bytes) -> None:
        if channel == self.ECHO:
            self._heard = int(data)
        else:
            super()._deliver(channel, data)


async def quiet(traffic: Traffic, hub: WatchedHub) -> None:
    """Returns once nobody can do anything any more until the machine lets them: so examples repeat themselves."""
    loop = cast(HastyLoop, asyncio.get_running_loop())
    while True:
        sent = traffic.sent
        await _until_calm(traffic, loop)
        if hub.clients:
            await hub.hear_all()
            await _until_calm(traffic, loop)
        if traffic.sent == sent and hub.is_settled:
            return


async def _until_calm(traffic: Traffic, loop: HastyLoop) -> None:
    calm = 0
    while calm < 3:
        await traffic.calm.wait()
        await asyncio.sleep(0)
        if not traffic.calm.is_set() or not loop.is_calm:
            calm = 0
            if not loop._ready:  # type: ignore[attr-defined]
                await asyncio.sleep(0.0002)
        else:
            calm += 1


@contextmanager
def logged_errors() -> Iterator[list[str]]:
    """What the product logs as its own fault, meanwhile; not what a dead process would have."""
    errors: list[str] = []

    def note(_: Any, method: str, event: structlog.typing.EventDict) -> Any:
        error = sys.exc_info()[1]
        if method in ("error", "exception") and not isinstance(error, Killed):
            errors.append(f"{event}: {error!r}")
        raise structlog.DropEvent

    processors = structlog.get_config()["processors"]
    before = list(processors)
    processors[:] = [note]  # in place: loggers may have been bound to this list before
    try:
        yield errors
    finally:
        processors[:] = before


def history_violations(request: ModelRequest) -> list[str]:
    """What the providers' own services would refuse in this request."""
    bodies = {
        "/messages": anthropic_request.build_body(request),
        "/chat/completions": chat_request.build_body(request, "plain"),
        "/responses": openai_request.build_body(request),
    }
    found = [(path, find_violation(path, body)) for path, body in bodies.items()]
    return [f"{path}: {violation}" for path, violation in found if violation is not None]
