"""What model calls add up to. They are asked by themselves: what they were made for may be deleted long since."""

import asyncio
from datetime import datetime
from uuid import UUID

import msgspec

from common.store.database import Connection


class Spent(msgspec.Struct, kw_only=True, frozen=True):
    """Calls of one model in one period, of one agent and one user where these were told apart.

    `period` counts from 1. `plain_input_tokens` were neither read from the provider's cache nor written to it;
    `estimated_tokens` are what calls with estimated figures have of input and output.
    """

    period: int
    provider: str
    model: str
    agent_id: UUID | None
    user: str | None
    calls: int
    estimated_calls: int
    input_tokens: int
    plain_input_tokens: int
    cached_input_tokens: int
    cache_write_tokens: int
    output_tokens: int
    reasoning_tokens: int
    estimated_tokens: int


async def select_spent(
    connection: Connection,
    bounds: list[datetime],
    *,
    by_agent: bool,
    by_user: bool,
    of_user: str | None,
    of_conversation: UUID | None,
    limit: int,
) -> list[Spent]:
    """The calls begun between the first and the last of `bounds`, which ascend; a period lies between two neighbours.

    `of_user` and `of_conversation` leave out all others'. At most `limit` rows, in no order.
    """
    agent, user = "agent_id" if by_agent else "null::uuid", "created_by" if by_user else "null::text"
    # One range of the index after the other: told that many days are one range, Postgres sorts all its calls on disk.
    rows = await connection.fetch(
        f"""
        select p.period, c.*
        from unnest($1::timestamptz[], $2::timestamptz[]) with ordinality as p (begins, ends, period)
        cross join lateral (
            select provider, model, {agent} as agent_id, {user} as "user", count(*) as calls,
                   count(*) filter (where estimated) as estimated_calls,
                   sum(input_tokens)::bigint as input_tokens,
                   sum(greatest(input_tokens - cached_input_tokens - cache_write_tokens, 0))::bigint
                       as plain_input_tokens,
                   sum(cached_input_tokens)::bigint as cached_input_tokens,
                   sum(cache_write_tokens)::bigint as cache_write_tokens,
                   sum(output_tokens)::bigint as output_tokens,
                   sum(reasoning_tokens)::bigint as reasoning_tokens,
                   coalesce(sum(input_tokens + output_tokens) filter (where estimated), 0)::bigint
                       as estimated_tokens
            from model_calls
            where started_at >= p.begins and started_at < p.ends
              and ($3::text is null or created_by = $3) and ($4::uuid is null or conversation_id = $4)
            group by provider, model{", agent_id" if by_agent else ""}{", created_by" if by_user else ""}
        ) c
        limit $5
        """,
        bounds[:-1],
        bounds[1:],
        of_user,
        of_conversation,
        limit,
    )
    # In a thread: tens of thousands of rows would hold up everybody's streams for a tenth of a second.
    return await asyncio.to_thread(lambda: [Spent(**row) for row in rows])
