"""The commit of a step: fence, message, meter and progress in one statement, since each one costs a round trip."""

from datetime import timedelta
from uuid import UUID

from common.ids import new_id
from common.model.clean import clean, clean_json
from common.model.messages import Message
from common.model.steps import NewStep
from common.store.database import Connection
from common.store.messages import MESSAGE_COLUMNS, read_message
from common.store.model_calls import finish_parameters, finishing

_COMMIT = f"""
    with held as (
        update runs
        set lease_until = clock_timestamp() + $3, step_count = $4, step_finish_reason = $5,
            crashes_since_progress = 0, crashes_at_progress = crashes_total,
            first_token_at = coalesce(first_token_at, clock_timestamp() - $6::float8 * interval '1 second')
        where id = $1 and attempt = $2 and state = 'running' and step_count < $4
        returning *),
    metered as ({finishing(13, "exists (select from held)")})
    insert into messages (workspace_id, id, conversation_id, run_id, step, turn, position, role, content,
                          reasoning, tool_calls, provider_data, agent_id, provider, model, usage, superseded_at)
    select r.workspace_id, $7, r.conversation_id, r.id, r.step_count, r.turn,
           (select max(m.position + coalesce(jsonb_array_length(m.tool_calls), 0)) + 1 from messages m
            where m.workspace_id = r.workspace_id and m.conversation_id = r.conversation_id and m.turn = r.turn),
           'assistant', $8, $9, $10, $11, r.agent_id, r.provider, r.model, $12,
           case when r.superseded_at is not null then clock_timestamp() end
    from held r
    returning {MESSAGE_COLUMNS}
"""


async def insert_step(
    connection: Connection, run_id: UUID, attempt: int, lease_s: float, step: NewStep
) -> Message | None:
    """Holds the run as `hold_run` does, inserts the step's message behind the run's earlier output, closes its model
    call, counts the step and forgives the crashes before it; the run keeps the time of its first token of all.

    Positions behind the message are reserved for the results of the step's calls, so that these keep the calls' order.
    None, and nothing is written, when the run is not ours or the step is committed already.
    """
    output = step.output
    row = await connection.fetchrow(
        _COMMIT,
        run_id,
        attempt,
        timedelta(seconds=lease_s),
        step.index,
        step.finish_reason,
        step.first_token_age_s,
        new_id(),
        clean(output.content),
        None if output.reasoning is None else clean(output.reasoning),
        output.tool_calls or None,
        None if output.provider_data is None else clean_json(output.provider_data),
        output.usage,
        *finish_parameters(step.model_call_id, "completed", output.usage),
    )
    return None if row is None else read_message(row)
