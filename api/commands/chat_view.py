"""What a chat's client reads and stops: the run to follow, the messages to begin with."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from api.auth import Principal
from api.commands.aftermath import Aftermath
from api.commands.cancel_run import wait_for_end
from api.commands.chat_names import chat_id
from api.resources import Resources
from common.failpoints import failpoint
from common.model.messages import Message, Run
from common.model.run_state import CancelReason
from common.store.conversations import lock_conversation, select_conversation
from common.store.database import workspace_transaction
from common.store.messages import select_messages
from common.store.runs import select_latest_run, select_partial_texts, select_unfinished_runs

REPLAYED_FOR = timedelta(seconds=60)
"""For how long after its end a run is still told to whoever asks for what goes on."""


class History(NamedTuple):
    """A chat's messages in order, each with its turn, without those of runs that go on; and, by run, in the order
    of turns, what the unfinished step of an ended run had said."""

    messages: Sequence[tuple[int, Message]]
    partial_texts: Sequence[tuple[int, UUID, str]]


async def find_run_to_follow(resources: Resources, principal: Principal, name: str) -> Run | None:
    """The run that goes on, or has ended a moment ago: a client that was cut off, or has loaded the messages just
    before the end, would otherwise never hear the rest. None for a chat that is unknown, deleted or silent."""
    async with workspace_transaction(resources.pool, principal.workspace_id) as connection:
        run = await select_latest_run(connection, chat_id(name))
    if run is None or run.finished_at is None:
        return run
    return run if datetime.now(UTC) - run.finished_at < REPLAYED_FOR else None


async def read_history(resources: Resources, principal: Principal, name: str) -> History:
    """What the chat has said so far; nothing for one that is unknown or deleted."""
    conversation_id = chat_id(name)
    async with workspace_transaction(resources.pool, principal.workspace_id) as connection:
        if await select_conversation(connection, conversation_id) is None:
            return History((), ())
        # The runs first: one that ends in between is then left out, and told by its stream.
        going_on = {run.id for run in await select_unfinished_runs(connection, conversation_id)}
        placed = await select_messages(connection, conversation_id)
        partial_texts = await select_partial_texts(connection, conversation_id)
    return History(
        [(place.turn, message) for place, message in placed if message.run_id not in going_on],
        [partial for partial in partial_texts if partial[1] not in going_on],
    )


async def stop_chat(resources: Resources, principal: Principal, name: str) -> None:
    """Cancels what the chat is doing, and what waits for its turn; returns when it has ended, or after 2 s."""
    conversation_id = chat_id(name)
    aftermath = Aftermath()
    async with workspace_transaction(resources.pool, principal.workspace_id) as connection:
        if await lock_conversation(connection, conversation_id) is None:
            return
        runs = await select_unfinished_runs(connection, conversation_id)
        for run in reversed(runs):
            await aftermath.cancel(connection, run.id, CancelReason.USER, promote=False)
        await failpoint("request.before_commit")
    await failpoint("request.after_commit")
    await aftermath.carry_out(resources)
    if runs:
        await wait_for_end(resources, principal, runs[0])
