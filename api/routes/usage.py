"""Usage: what a workspace's requests to models add up to, and cost."""

import asyncio
import csv
import io
from datetime import date
from typing import Annotated, Any, get_args
from uuid import UUID

import msgspec
from litestar import Response, Router, get
from litestar.di import NamedDependency
from litestar.params import QueryParameter, SkipValidation

from api.auth import Principal, WorkspaceRole, authenticate
from api.body import JsonRequest
from api.errors import invalid
from api.pagination import ListCursor
from api.prices import Prices
from api.routes.injection import Asker, Process
from api.routes.refusals import refusals
from api.usage import Place, add_up, cut_into_periods, place_of
from common.errors import ErrorCode, ThroughlineError
from common.model.usage import Dimension, UsageReport, UsageSum
from common.store.database import workspace_transaction
from common.store.usage import select_spent

MAX_PARTS = 50_000
"""Groups, where each counts once for each of its models and prices."""

_DIMENSIONS: tuple[Dimension, ...] = get_args(Dimension)
_NAMES = "|".join(_DIMENSIONS)
_COLUMNS: dict[Dimension, tuple[str, ...]] = {
    "day": ("day",),
    "model": ("provider", "model"),
    "agent": ("agentId",),
    "user": ("user",),
}

FirstDay = Annotated[
    date | None, QueryParameter(name="from", description="The first day, in UTC; default: 29 days before `to`.")
]
LastDay = Annotated[date | None, QueryParameter(name="to", description="The last day, in UTC; default: today.")]
GroupBy = Annotated[
    str,
    QueryParameter(
        name="groupBy",
        pattern=rf"^({_NAMES})(,({_NAMES}))*$",
        description=f"Any of {', '.join(_DIMENSIONS)}, joined by commas. `model` tells providers apart as well.",
    ),
]
OfUser = Annotated[
    str | None, QueryParameter(name="user", min_length=1, max_length=255, description="The calls of one user alone.")
]
OfConversation = Annotated[
    UUID | None,
    QueryParameter(name="conversationId", description="The calls of one conversation alone; it may be deleted."),
]
GroupLimit = Annotated[int, QueryParameter(ge=1, le=1000, description="How many groups at most.")]
GroupCursor = Annotated[
    str | None,
    # Its place holds names that a client has chosen.
    QueryParameter(
        name="cursor",
        max_length=4000,
        description="`nextCursor` of the piece before; opaque, and good for this question only.",
    ),
]
Priced = NamedDependency[SkipValidation[Prices | None]]


@get("/", responses=refusals())
async def get_usage(
    request: JsonRequest,
    resources: Process,
    principal: Asker,
    prices: Priced,
    first_day: FirstDay = None,
    last_day: LastDay = None,
    group_by: GroupBy = "day",
    of_user: OfUser = None,
    of_conversation: OfConversation = None,
    limit: GroupLimit = 1000,
    cursor: GroupCursor = None,
) -> Response[UsageReport]:
    """Adds up requests to models, of 366 days at most. Who has used how much is told to owners and admins; others may
    ask for themselves, with `user`. With `Accept: text/csv`: all groups, as CSV."""
    if of_user is not None and "\x00" in of_user:
        raise invalid("user: text may not contain U+0000")
    asked = set(group_by.split(","))
    dimensions = [dimension for dimension in _DIMENSIONS if dimension in asked]
    _check_role(principal, dimensions, of_user)
    periods = cut_into_periods(first_day, last_day, by_day="day" in asked, prices=prices)
    filters = (periods.first, periods.last, dimensions, of_user, of_conversation)
    cursors = ListCursor("usage", principal.workspace_id, *filters)
    after = cursors.read(cursor, Place)
    async with workspace_transaction(resources.pool, principal.workspace_id) as connection:
        spent = await select_spent(
            connection,
            periods.bounds,
            by_agent="agent" in asked,
            by_user="user" in asked,
            of_user=of_user,
            of_conversation=of_conversation,
            limit=MAX_PARTS + 1,
        )
    if len(spent) > MAX_PARTS:
        raise invalid(
            f"groupBy: more than {MAX_PARTS:,} groups with their models; ask for fewer days, or group by less"
        )
    # In a thread: so many groups would hold up everybody's streams.
    total, groups = await asyncio.to_thread(add_up, spent, periods.days, dimensions, prices)
    report = UsageReport(
        first_day=periods.first,
        last_day=periods.last,
        group_by=dimensions,
        currency=prices.currency if prices else None,
        total=total,
        data=groups,
    )
    if "text/csv" in request.headers.get("accept", ""):
        return await asyncio.to_thread(_answer_csv, report)
    left = [group for group in groups if after is None or place_of(group).order > after.order]
    page = cursors.page(left, limit, place_of)
    report.data, report.next_cursor = page.data, page.next_cursor
    return Response(report)


def _check_role(principal: Principal, dimensions: list[Dimension], of_user: str | None) -> None:
    about_others = of_user != principal.user and ("user" in dimensions or of_user is not None)
    if about_others and principal.role not in (WorkspaceRole.OWNER, WorkspaceRole.ADMIN):
        raise ThroughlineError(
            ErrorCode.FORBIDDEN, "Who has used how much is told to owners and admins; `user` may name yourself."
        )


def _answer_csv(report: UsageReport) -> Response[Any]:
    fields = [name for dimension in report.group_by for name in _COLUMNS[dimension]]
    rows: list[dict[str, Any]] = [{**msgspec.to_builtins(group), "currency": report.currency} for group in report.data]
    text = io.StringIO()
    writer = csv.writer(text)
    sums = [field.encode_name for field in msgspec.structs.fields(UsageSum)]
    writer.writerow([*fields, *sums, "currency"])
    writer.writerows([_cell(row[name]) for name in (*fields, *sums, "currency")] for row in rows)
    name = f"usage-{report.first_day}-{report.last_day}.csv"
    return Response(
        text.getvalue().encode(),
        media_type="text/csv",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


def _cell(value: Any) -> Any:
    """Names are what somebody has chosen, and a spreadsheet must not take one for a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


usage = Router("/v1/usage", guards=[authenticate], tags=["Usage"], route_handlers=[get_usage])
