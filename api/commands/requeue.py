"""An operator starts a failed run again: a new run of the same turn, as the failed one was, once."""

from uuid import UUID

import structlog

from api.auth import Operator
from api.commands.aftermath import Aftermath
from api.commands.begin_run import busy
from api.errors import not_found
from api.resources import Resources
from common.errors import ErrorCode, ThroughlineError
from common.failpoints import failpoint
from common.ids import new_id
from common.model.messages import Run
from common.model.operations import Requeue
from common.model.run_state import RunState
from common.observability.tracing import current_traceparent
from common.store.conversations import lock_conversation
from common.store.database import Connection, workspace_transaction
from common.store.messages import update_superseded
from common.store.requeues import insert_requeue, select_requeue
from common.store.run_schedule import poll_runs
from common.store.run_transitions import DueRun, supersede_runs
from common.store.runs import insert_run_again, select_is_newest, select_run, select_turn, select_unfinished_runs

_log = structlog.get_logger(__name__)


async def requeue(resources: Resources, operator: Operator, run_id: UUID) -> Requeue:
    """The requeue of a failed run, made now or before; what the failed run had said is superseded.

    The new run is its user's, as the failed one was: tools act for them, and the operator is only on record. Raises
    `not_found` (also for a run of a deleted conversation), `run_not_failed`, `conversation_busy`,
    `conversation_went_on` and `run_details_removed`.
    """
    position = next(iter(await poll_runs(resources.pool, [run_id])), None)
    if position is None:
        raise not_found()
    aftermath = Aftermath()
    async with workspace_transaction(resources.pool, position.workspace_id) as connection:
        run = await select_run(connection, run_id)
        if run is None or await lock_conversation(connection, run.conversation_id) is None:
            raise not_found()
        before = await select_requeue(connection, run_id)
        if before is not None:
            return before
        begun = await _begin_again(connection, run, operator, aftermath)
        await failpoint("request.before_commit")
    await failpoint("request.after_commit")
    _log.info("run_requeued", run_id=str(run_id), new_run_id=str(begun.new_run_id))
    await aftermath.carry_out(resources)
    return begun


async def _begin_again(connection: Connection, run: Run, operator: Operator, aftermath: Aftermath) -> Requeue:
    if run.state is not RunState.FAILED:
        raise ThroughlineError(ErrorCode.RUN_NOT_FAILED, f"Only a failed run can be started again; it is {run.state}.")
    if unfinished := await select_unfinished_runs(connection, run.conversation_id):
        raise busy(unfinished[0])
    if not await select_is_newest(connection, run.id):
        raise ThroughlineError(
            ErrorCode.CONVERSATION_WENT_ON, "The conversation has gone on since, or its turn was answered anew."
        )
    turn = await select_turn(connection, run.id)
    await supersede_runs(connection, run.conversation_id, turn)
    await update_superseded(connection, run.conversation_id, turn)
    begun = await insert_run_again(connection, run.id, new_id(), current_traceparent())
    if begun is None:
        raise ThroughlineError(
            ErrorCode.RUN_DETAILS_REMOVED,
            "What the run was made of is kept no longer; its message can still be answered anew.",
        )
    aftermath.due.append(DueRun(begun.id, begun.priority))
    return await insert_requeue(connection, run.id, begun.id, operator.user)
