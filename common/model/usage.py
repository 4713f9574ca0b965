"""What `GET /v1/usage` answers."""

from datetime import date
from typing import Annotated, Literal
from uuid import UUID

import msgspec
from msgspec import Meta

from common.model.messages import Wire

Dimension = Literal["day", "model", "agent", "user"]


class UsageSum(Wire, kw_only=True):
    """What requests to models add up to, whatever became of them. `inputTokens` includes what was read from the
    provider's cache and what was written to it, `outputTokens` the reasoning."""

    calls: int = 0
    estimated_calls: Annotated[
        int,
        Meta(description="Those whose provider gave no final figures: most were cancelled, failed or crashed."),
    ] = 0
    unpriced_calls: Annotated[int, Meta(description="Those of models that have no price.")] = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    estimated_tokens: Annotated[int, Meta(description="The part of input and output that is of estimated calls.")] = 0
    cost: Annotated[
        str | None,
        Meta(description="In `currency`: an exact decimal number, as text. Null with one unpriced call among them."),
    ] = None


class UsageGroup(UsageSum, kw_only=True):
    """The sum of the calls that are alike in what `groupBy` names; what it does not name is null. Grouped by agent, a
    null `agentId` means calls without one."""

    day: Annotated[date | None, Meta(description="In UTC: on which the calls began.")] = None
    provider: str | None = None
    model: str | None = None
    agent_id: Annotated[UUID | None, Meta(description="May be of an agent that was deleted since.")] = None
    user: Annotated[str | None, Meta(description="Who asked for the run: the `sub` of the token.")] = None


class UsageReport(Wire, kw_only=True):
    """Groups (newest day first, then by name) and the sum of them all, also of those on other pieces."""

    first_day: date = msgspec.field(name="from")
    last_day: date = msgspec.field(name="to")
    group_by: list[Dimension]
    currency: Annotated[str | None, Meta(description="Null without configured prices.")] = None
    total: UsageSum
    data: list[UsageGroup]
    next_cursor: Annotated[str | None, Meta(description="Send it as `cursor` for the next piece; null at the end.")] = (
        None
    )
