"""The socket over which a document is edited together. It speaks y-websocket's protocol; see docs/documents.md."""

import asyncio
import time
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import msgspec
import structlog
from litestar import WebSocket, websocket
from litestar.datastructures import State
from litestar.params import FromPath

from api.auth import Principal, count_request, principal_of, read_principal
from api.collaboration.items import Asked, Changed
from api.collaboration.member import Member
from api.collaboration.messages import AskChanges, AskPresence, Changes, TellPresence, read_message
from api.collaboration.outbox import Close, Outbox
from api.collaboration.room import Room
from api.collaboration.rooms import Rooms
from api.collaboration.storage import NO_DOCUMENT
from api.commands.tickets import redeem_ticket
from api.limits.admission import Admission
from api.relay.sse import ABORT_EXTENSION
from common.config import Settings
from common.documents.lib0 import Malformed
from common.documents.update_scan import scan_update
from common.errors import ErrorCode, ThroughlineError
from common.store.database import DATABASE_DOWN
from common.store.document_log import EMPTY

MAX_MESSAGE_BYTES = 1024 * 1024

_MAX_STATE_BYTES = 64 * 1024
_TOKEN_S = 10.0
_CLOSING_S = 6.0
_LARGE_BYTES = 32 * 1024
_CLOSE = {
    ErrorCode.UNAUTHORIZED: Close.UNAUTHORIZED,
    ErrorCode.FORBIDDEN: Close.FORBIDDEN,
    ErrorCode.WORKSPACE_REQUIRED: Close.FORBIDDEN,
    ErrorCode.NOT_FOUND: Close.NOT_FOUND,
    ErrorCode.REQUEST_TIMEOUT: Close.TIMEOUT,
    ErrorCode.RATE_LIMITED: Close.TRY_AGAIN,
    ErrorCode.TOO_MANY_CONNECTIONS: Close.TOO_MANY,
    ErrorCode.UNAVAILABLE: Close.TRY_AGAIN,
}

_log = structlog.get_logger(__name__)

Socket = WebSocket[Any, Any, State]


class _FirstMessage(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """What a client says that has neither a ticket nor headers."""

    token: str
    workspace_id: UUID | None = None


class _Left(Exception):
    """The client has closed the connection."""


@websocket("/v1/documents/{document_id:str}/sync")
async def collaborate(socket: Socket, document_id: FromPath[str]) -> None:
    """Opens a document. Refused is after the accept: y-websocket takes a refusal before it for a failure that passes,
    and tries again for ever, without knowing why.
    """
    await socket.accept()
    outbox = _outbox_of(socket)
    sending = asyncio.create_task(outbox.run(), name="document socket")
    try:
        await _serve(socket, document_id, outbox)
    except _Left:
        pass
    except Malformed as error:
        outbox.close(Close.MALFORMED, str(error))
    except ThroughlineError as error:
        outbox.close(_CLOSE.get(error.code, Close.MALFORMED), error.message)
    except DATABASE_DOWN as error:
        _log.warning("document_not_opened", error=repr(error))
        outbox.close(Close.TRY_AGAIN, "try again")
    except Exception:
        _log.exception("document_socket_broke")
        outbox.close(Close.TRY_AGAIN, "try again")
    finally:
        if outbox.is_closing:
            await asyncio.wait([sending], timeout=_CLOSING_S)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


async def _serve(socket: Socket, document_text: str, outbox: Outbox) -> None:
    if not _is_allowed_origin(socket):
        raise ThroughlineError(ErrorCode.FORBIDDEN, "this origin is not allowed")
    document_id = _read_id(document_text)
    principal = await _who(socket, document_id)
    await count_request(socket, principal)
    admission: Admission = socket.app.state.resources.admission
    admission.take_seat(socket.scope, "socket", principal.workspace_id, principal.user)
    rooms: Rooms = socket.app.state.rooms
    loop = asyncio.get_running_loop()
    lifetime_s = principal.expires_at.timestamp() - time.time()
    expiry = loop.call_later(lifetime_s, outbox.close, Close.UNAUTHORIZED, "the token has expired")
    try:
        member = Member(principal, outbox)
        room = await rooms.enter(principal.workspace_id, document_id, member)
        if room is None:
            return
        try:
            while not outbox.is_closing:
                await _do(room, member, await _receive(socket))
        finally:
            room.lobby.leave(member)
    finally:
        expiry.cancel()


async def _do(room: Room, member: Member, data: bytes | str) -> None:
    if isinstance(data, str):
        raise Malformed("a message is binary")
    if len(data) > MAX_MESSAGE_BYTES:
        member.outbox.close(Close.TOO_LARGE, f"a message has at most {MAX_MESSAGE_BYTES} bytes")
        return
    member.messages += 1
    match read_message(data):
        case Changes() as changes:
            await _change(room, member, changes)
        case AskChanges(state):
            if len(state) > _MAX_STATE_BYTES:
                raise Malformed("a state vector is too large")
            await room.submit(Asked(member, state), len(state))
        case TellPresence(entries):
            room.lobby.announce(member, entries)
        case AskPresence():
            room.lobby.introduce(member)


async def _change(room: Room, member: Member, changes: Changes) -> None:
    update = changes.update
    if not member.can_write:
        if update != EMPTY:
            member.refuse_change()
        return
    if len(update) > _LARGE_BYTES:  # Takes up to half a second, which nobody else has to wait for.
        scan = await asyncio.to_thread(scan_update, update, room.kind)
    else:
        scan = scan_update(update, room.kind)
    await room.submit(Changed(member, update, scan, changes.answers), len(update))


async def _who(socket: Socket, document_id: UUID) -> Principal:
    ticket = socket.query_params.get("ticket")
    if ticket is not None:
        return await redeem_ticket(socket.app.state.resources, ticket, "document", document_id)
    if "authorization" in socket.headers:
        return await read_principal(socket)
    try:
        async with asyncio.timeout(_TOKEN_S):
            first = await _receive(socket)
    except TimeoutError:
        raise ThroughlineError(ErrorCode.REQUEST_TIMEOUT, "no token has come") from None
    try:
        said = msgspec.json.decode(first if isinstance(first, str) else b"", type=_FirstMessage)
    except msgspec.MsgspecError:
        raise ThroughlineError(ErrorCode.UNAUTHORIZED, "send a ticket, or a token first") from None
    return await principal_of(socket.app.state.verifier, said.token, said.workspace_id)


async def _receive(socket: Socket) -> bytes | str:
    event = await socket.receive()
    if event["type"] != "websocket.receive":
        raise _Left
    # Litestar's own methods give empty bytes for a message of text.
    text: str | None = event.get("text")
    return text if text is not None else event.get("bytes") or b""


def _is_allowed_origin(socket: Socket) -> bool:
    """Programs send none; a browser says truly which page has opened the socket."""
    origin = socket.headers.get("origin")
    if origin is None:
        return True
    settings: Settings = socket.app.state.settings
    if "*" in settings.cors_origins or origin in settings.cors_origins:
        return True
    try:
        return urlsplit(origin).netloc == socket.headers.get("host")
    except ValueError:
        return False


def _read_id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise ThroughlineError(ErrorCode.NOT_FOUND, NO_DOCUMENT) from None


def _outbox_of(socket: Socket) -> Outbox:
    async def send(data: bytes) -> None:
        await socket.send({"type": "websocket.send", "bytes": data, "text": None})

    async def close(code: int, reason: str) -> None:
        await socket.send({"type": "websocket.close", "code": code, "reason": reason})

    extensions: dict[str, Any] = socket.scope.get("extensions") or {}
    return Outbox(send, close, extensions.get(ABORT_EXTENSION, lambda: None))
