"""Messages: posting one starts a run."""

from typing import Annotated, Any
from uuid import UUID

from litestar import Response, Router, get, post, put
from litestar.enums import MediaType
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, HeaderParameter, JSONBody, QueryParameter

from api.auth import authenticate
from api.body import JsonRequest
from api.commands.attach import attach
from api.commands.begin_run import Begun, accept
from api.commands.edit_message import edit_message
from api.commands.regenerate import regenerate
from api.commands.start_run import start_run
from api.errors import not_found
from api.pagination import DEFAULT_LIMIT, CursorText, Limit, ListCursor
from api.routes.injection import Asker, Process
from api.routes.refusals import refusals
from api.routes.streams import admit_stream, stream_response
from common.ids import Cursor
from common.model.answers import Accepted, Page
from common.model.messages import Message
from common.model.requests import MessageEdit, NewMessage, Regeneration
from common.store.conversations import select_conversation
from common.store.database import workspace_transaction
from common.store.messages import Place, select_messages

IdempotencyKey = Annotated[
    str | None,
    HeaderParameter(
        name="Idempotency-Key", description="Within 24 h the same request again gets the first answer, byte for byte."
    ),
]
LastEventId = Annotated[
    str | None,
    HeaderParameter(
        name="Last-Event-ID",
        description="`<runId>:<attempt>-<n>`: attaches to the run that it names; nothing is created.",
    ),
]
Superseded = Annotated[
    bool, QueryParameter(name="superseded", description="True: those that a regeneration replaced, too.")
]

_STREAM = {
    200: ResponseSpec(
        str,
        generate_examples=False,
        media_type="text/event-stream",
        description="The run's events, where the request accepts `text/event-stream`.",
    )
}


@get("/", responses=refusals(404))
async def list_messages(
    resources: Process,
    principal: Asker,
    conversation_id: FromPath[UUID],
    superseded: Superseded = False,
    limit: Limit = DEFAULT_LIMIT,
    cursor: CursorText = None,
) -> Page[Message]:
    """Lists a conversation's messages, oldest first."""
    cursors = ListCursor("messages", principal.workspace_id, conversation_id, superseded)
    after = cursors.read(cursor, Place)
    async with workspace_transaction(resources.pool, principal.workspace_id) as connection:
        if await select_conversation(connection, conversation_id) is None:
            raise not_found()
        placed = await select_messages(connection, conversation_id, superseded=superseded, after=after, limit=limit + 1)
    page = cursors.page(placed, limit, lambda found: found[0])
    return Page(data=[message for _, message in page.data], next_cursor=page.next_cursor)


@post("/", status_code=202, responses={**_STREAM, **refusals(404, 409, 413, 415, 422)})
async def post_message(
    request: JsonRequest,
    resources: Process,
    principal: Asker,
    conversation_id: FromPath[UUID],
    data: JSONBody[NewMessage],
    idempotency_key: IdempotencyKey = None,
    last_event_id: LastEventId = None,
) -> Response[Accepted]:
    """Stores a message and starts its run. With `Accept: text/event-stream`: 200, and the run's events."""
    if _wants_stream(request):
        admit_stream(request, principal)
    if last_event_id is not None:
        trigger, run, cursor = await attach(resources, principal, conversation_id, last_event_id)
        return await _answer(request, principal, accept(trigger, run), cursor)
    begun = await start_run(resources, principal, conversation_id, data, idempotency_key)
    return await _answer(request, principal, begun)


@put("/{message_id:uuid}", responses=refusals(404, 409, 413, 415))
async def put_message(
    resources: Process,
    principal: Asker,
    conversation_id: FromPath[UUID],
    message_id: FromPath[UUID],
    data: JSONBody[MessageEdit],
) -> Message:
    """Edits a message: `content` stays as it was, and the model reads `editedContent` from now on."""
    return await edit_message(resources, principal, conversation_id, message_id, data.content)


@post(
    "/{message_id:uuid}/regenerate",
    status_code=202,
    responses={**_STREAM, **refusals(404, 409, 413, 415, 422)},
)
async def regenerate_message(
    request: JsonRequest,
    resources: Process,
    principal: Asker,
    conversation_id: FromPath[UUID],
    message_id: FromPath[UUID],
    data: JSONBody[Regeneration | None] = None,
    idempotency_key: IdempotencyKey = None,
    last_event_id: LastEventId = None,
) -> Response[Accepted]:
    """Answers a turn anew: its old output and all later turns are superseded, not deleted.

    The message is the user's or an answer to it. The body may be left out.
    """
    if _wants_stream(request):
        admit_stream(request, principal)
    if last_event_id is not None:
        trigger, run, cursor = await attach(resources, principal, conversation_id, last_event_id)
        return await _answer(request, principal, accept(trigger, run), cursor)
    change = data or Regeneration()
    begun = await regenerate(resources, principal, conversation_id, message_id, change, idempotency_key)
    return await _answer(request, principal, begun)


async def _answer(request: JsonRequest, principal: Asker, begun: Begun, cursor: Cursor | None = None) -> Response[Any]:
    if _wants_stream(request) and begun.run is not None:
        return await stream_response(request, principal, begun.run, cursor, named_run=False)
    return Response(begun.answer, status_code=202, media_type=MediaType.JSON)


def _wants_stream(request: JsonRequest) -> bool:
    return "text/event-stream" in request.headers.get("accept", "")


messages = Router(
    "/v1/conversations/{conversation_id:uuid}/messages",
    guards=[authenticate],
    tags=["Messages"],
    route_handlers=[list_messages, post_message, put_message, regenerate_message],
)
