"""Streams: a run's events over SSE, from any cursor, for everybody who may read its conversation."""

from typing import Annotated, Any
from uuid import UUID

from litestar import Request, Response, Router, get
from litestar.connection import ASGIConnection
from litestar.datastructures import State
from litestar.handlers import BaseRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, HeaderParameter, QueryParameter

from api.auth import Principal, authenticate, count_request
from api.commands.tickets import redeem_ticket
from api.errors import invalid, not_found
from api.protocols import PROTOCOLS
from api.protocols.fold import Place
from api.relay.hub import Subject
from api.relay.sse import EVENT_STREAM, EventStream
from api.resources import Resources
from api.routes.injection import Asker, Process
from api.routes.refusals import refusals
from common.errors import ErrorCode, ThroughlineError
from common.ids import Cursor, EventId, parse_cursor
from common.model.messages import Run
from common.store.conversations import select_conversation
from common.store.database import Connection, Pool, workspace_transaction
from common.store.run_schedule import poll_runs
from common.store.runs import select_latest_run, select_run, select_run_of_trigger

_TOKENS_IN_URL = frozenset({"token", "access_token", "accessToken", "jwt", "authorization", "apikey"})
_RESPONSES = {204: ResponseSpec(None, description="Nothing comes after the cursor."), **refusals(404)}

LastEventId = Annotated[
    str | None,
    HeaderParameter(
        name="Last-Event-ID",
        description="The last event seen, as `<attempt>-<n>` or `<runId>:<attempt>-<n>`: what follows it is sent.",
    ),
]
After = Annotated[
    str | None,
    QueryParameter(name="after", description="As `Last-Event-ID`, for those who cannot send it; the header wins."),
]
QueryLastEventId = Annotated[
    str | None,
    QueryParameter(
        name="lastEventId", description="As `after`, and wins over it: some clients add it when they reconnect."
    ),
]
TicketText = Annotated[
    str | None, QueryParameter(name="ticket", description="Instead of a token, for clients that send no headers.")
]


async def admit(connection: "ASGIConnection[Any, Any, Any, State]", route_handler: BaseRouteHandler) -> None:
    """A guard: `connection.user` is then whoever holds the token, or minted the ticket for just this stream."""
    if not _TOKENS_IN_URL.isdisjoint(connection.query_params):
        raise invalid("A token does not belong into a URL: send it as a header, or mint a ticket.")
    ticket = connection.query_params.get("ticket")
    if ticket is None:
        await authenticate(connection, route_handler)
        return
    kind = route_handler.opt["subject"]
    subject_id = connection.path_params[f"{kind}_id"]
    principal = await redeem_ticket(connection.app.state.resources, ticket, kind, subject_id)
    await count_request(connection, principal)
    connection.scope["user"] = principal


@get("/v1/runs/{run_id:uuid}/stream", media_type=EVENT_STREAM, responses=_RESPONSES, opt={"subject": "run"})
async def stream_run(
    request: Request[Principal, Any, State],
    resources: Process,
    principal: Asker,
    run_id: FromPath[UUID],
    last_event_id: LastEventId = None,
    query_last_event_id: QueryLastEventId = None,
    after: After = None,
    ticket: TicketText = None,
) -> Response[str]:
    """Streams a run's events, from its first one or after a cursor, to its end."""
    admit_stream(request, principal)
    cursor = _read_cursor(last_event_id, query_last_event_id, after)
    async with workspace_transaction(resources.pool, principal.workspace_id) as connection:
        run = await select_run(connection, run_id)
    if run is None:
        raise not_found()
    if cursor is not None and cursor.run_id not in (None, run.id):
        raise _invalid_cursor("it is of another run")
    return await stream_response(request, principal, run, cursor, named_run=True)


@get(
    "/v1/conversations/{conversation_id:uuid}/stream",
    media_type=EVENT_STREAM,
    responses=_RESPONSES,
    opt={"subject": "conversation"},
)
async def stream_conversation(
    request: Request[Principal, Any, State],
    resources: Process,
    principal: Asker,
    conversation_id: FromPath[UUID],
    trigger_message_id: Annotated[
        UUID | None, QueryParameter(name="triggerMessageId", description="The run that this message started.")
    ] = None,
    last_event_id: LastEventId = None,
    query_last_event_id: QueryLastEventId = None,
    after: After = None,
    ticket: TicketText = None,
) -> Response[str]:
    """Streams the run that a message started, else the active, else the latest one; a cursor names its own
    run.
    """
    admit_stream(request, principal)
    cursor = _read_cursor(last_event_id, query_last_event_id, after)
    async with workspace_transaction(resources.pool, principal.workspace_id) as connection:
        if await select_conversation(connection, conversation_id) is None:
            raise not_found()
        run = await _select_followed(connection, conversation_id, trigger_message_id, cursor)
    return await stream_response(request, principal, run, cursor, named_run=False)


async def stream_response(
    request: Request[Any, Any, Any],
    principal: Principal,
    run: Run,
    cursor: Cursor | None,
    named_run: bool,
    protocol: str = "native",
    after: int | None = None,
) -> Response[str]:
    """The stream of `run` after `cursor`; 204 when there is nothing after it. `named_run`: the URL names it. `after`
    stands in for the cursor where the protocol counts by itself.

    When this process is about to stop it breaks off after its first bytes: whoever has begun a run must not be told
    that nothing has happened. So call `admit_stream` before anything has.
    """
    resources: Resources = request.app.state.resources
    seen = None if cursor is None else cursor.event_id
    terminal = None
    if seen is not None or run.state.is_terminal:
        terminal = await _terminal_id(resources.pool, run.id)
        if seen is not None and terminal is not None and seen >= terminal:
            return Response("", status_code=204, media_type=EVENT_STREAM)
    fold = PROTOCOLS[protocol](Place(run.id, named_run, seen, after, run))
    return EventStream(
        resources.hub,
        Subject(principal.workspace_id, run.id, terminal),
        cursor=None if fold.replays else seen,
        encoder=fold,
        expires_at=principal.expires_at.timestamp(),
        headers=fold.headers,
        whole=fold.replays,
    )


def admit_stream(request: Request[Any, Any, Any], principal: Principal) -> None:
    """Raises `too_many_connections`, or `unavailable` when this process is about to stop: what would be followed here
    is followed elsewhere.
    """
    resources: Resources = request.app.state.resources
    if resources.hub.closing:
        raise ThroughlineError(ErrorCode.UNAVAILABLE, "This server is about to stop. Try again.")
    resources.admission.take_seat(request.scope, "stream", principal.workspace_id, principal.user)


def _read_cursor(*texts: str | None) -> Cursor | None:
    """The first that was sent."""
    text = next((text for text in texts if text is not None), None)
    if text is None:
        return None
    cursor = parse_cursor(text)
    if cursor is None:
        raise _invalid_cursor("it has the form [<runId>:]<attempt>-<n>")
    return cursor


async def _select_followed(
    connection: Connection, conversation_id: FromPath[UUID], trigger_message_id: UUID | None, cursor: Cursor | None
) -> Run:
    if cursor is not None and cursor.run_id is not None:
        run = await select_run(connection, cursor.run_id)
        if run is None or run.conversation_id != conversation_id:
            raise _invalid_cursor("it is of no run of this conversation")
        return run
    if trigger_message_id is not None:
        run = await select_run_of_trigger(connection, conversation_id, trigger_message_id)
    else:
        run = await select_latest_run(connection, conversation_id)
    if run is None:
        raise ThroughlineError(ErrorCode.NO_RUN, "There is no run to follow here.")
    return run


async def _terminal_id(pool: Pool, run_id: FromPath[UUID]) -> EventId | None:
    positions = await poll_runs(pool, [run_id])
    return positions[0].terminal if positions else None


def _invalid_cursor(why: str) -> ThroughlineError:
    return ThroughlineError(ErrorCode.INVALID_CURSOR, f"The cursor is not valid: {why}.")


streams = Router(
    "/",
    guards=[admit],
    tags=["Streams"],
    route_handlers=[stream_run, stream_conversation],
)
