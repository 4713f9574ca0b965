"""The part that posting and regenerating share: room in the conversation, then a run in it."""

from collections.abc import Callable
from typing import Literal, NamedTuple
from uuid import UUID

import msgspec
from structlog.contextvars import bind_contextvars

from api.auth import Principal
from api.commands.aftermath import Aftermath
from api.commands.choice import Choice
from api.resources import Resources
from common.errors import ErrorCode, ThroughlineError
from common.ids import new_id
from common.model.answers import Accepted
from common.model.messages import Message, Run
from common.model.run_state import CancelReason, Priority, RunState
from common.observability.tracing import current_traceparent
from common.store.database import Connection
from common.store.idempotency_keys import KeptAnswer
from common.store.run_transitions import DueRun
from common.store.runs import NewRun, insert_run, select_run, select_unfinished_runs

IfBusy = Literal["reject", "enqueue", "interrupt"]


class Begun(NamedTuple):
    """What a request is answered with: the bytes of an `Accepted`, and the run to stream, if any."""

    answer: bytes
    run: Run | None


async def make_room(
    connection: Connection,
    conversation_id: UUID,
    if_busy: IfBusy,
    aftermath: Aftermath,
    reason_for: Callable[[Run], CancelReason] = lambda _: CancelReason.INTERRUPTED,
) -> RunState:
    """The state in which a new run of the conversation is born; the caller holds its lock.

    Raises `conversation_busy` where `if_busy` is `reject`. `interrupt` cancels the active and all waiting runs; one
    that a worker has in hand ends a little later, and the new run waits for that.
    """
    unfinished = await select_unfinished_runs(connection, conversation_id)
    if not unfinished:
        return RunState.QUEUED
    if if_busy == "reject":
        raise busy(unfinished[0])
    if if_busy == "enqueue":
        return RunState.WAITING
    states = [
        await aftermath.cancel(connection, run.id, reason_for(run), promote=False) for run in reversed(unfinished)
    ]
    return RunState.WAITING if RunState.RUNNING in states else RunState.QUEUED


def busy(run: Run) -> ThroughlineError:
    """The refusal of what a run stands in the way of."""
    return ThroughlineError(
        ErrorCode.CONVERSATION_BUSY, "A run of this conversation has not ended yet.", {"runId": str(run.id)}
    )


async def begin_run(
    resources: Resources,
    connection: Connection,
    principal: Principal,
    trigger: Message,
    turn: int,
    choice: Choice,
    state: RunState,
    priority: Priority,
    aftermath: Aftermath,
) -> Run:
    """The run of `trigger`, in the place that `make_room` found for it. Raises `too_many_runs` or `budget_exceeded`."""
    await resources.admission.admit_run(connection, principal.workspace_id, principal.user)
    run = await insert_run(
        connection,
        NewRun(
            id=new_id(),
            conversation_id=trigger.conversation_id,
            trigger_message_id=trigger.id,
            turn=turn,
            state=state,
            agent_id=choice.agent_id,
            provider=choice.provider,
            model=choice.model,
            instructions=choice.instructions,
            tools=choice.tools,
            settings=choice.settings,
            max_steps=choice.max_steps,
            created_by=principal.user,
            priority=priority,
            traceparent=current_traceparent(),
        ),
    )
    bind_contextvars(run_id=str(run.id))
    if state is RunState.QUEUED:
        aftermath.due.append(DueRun(run.id, priority))
    return run


def accept(message: Message, run: Run | None) -> Begun:
    """The answer to a message that is stored and, where it starts one, its run."""
    url = None if run is None else f"/v1/runs/{run.id}/stream"
    answer = msgspec.json.encode(Accepted(message=message, run=run, stream_url=url))
    return Begun(answer, run)


async def begun_before(connection: Connection, kept: KeptAnswer) -> Begun:
    """The answer to a request that was carried out before, and its run as it stands now."""
    return Begun(kept.answer, None if kept.run_id is None else await select_run(connection, kept.run_id))
