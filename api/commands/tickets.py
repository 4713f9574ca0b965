"""Tickets: minted with a token, redeemed in the URL of a stream. The text names the workspace, so that it can be
looked up under row level security; the rest of it is 256 random bits, of which only a hash is stored."""

import hashlib
import re
import secrets
from uuid import UUID

from structlog.contextvars import bind_contextvars

from api.auth import Principal, WorkspaceRole
from api.errors import invalid, not_found
from api.resources import Resources
from common.errors import ErrorCode, ThroughlineError
from common.model.answers import Ticket
from common.model.requests import NewTicket
from common.store.conversations import select_conversation
from common.store.database import Connection, workspace_transaction
from common.store.documents import select_document
from common.store.runs import select_run
from common.store.tickets import SubjectKind, TicketHolder, insert_ticket, update_ticket_redeemed

_REDEEM_WITHIN_S = 60
_TICKET = re.compile(r"tkt_([0-9a-f]{32})_([A-Za-z0-9_-]{43})")


async def mint_ticket(resources: Resources, principal: Principal, new: NewTicket) -> Ticket:
    """A ticket for the streams of one run or conversation, or for one document's socket. Raises `invalid_request` or
    `not_found`.
    """
    kind, subject_id = _subject(new)
    secret = secrets.token_urlsafe(32)
    async with workspace_transaction(resources.pool, principal.workspace_id) as connection:
        if not await _exists(connection, kind, subject_id):
            raise not_found()
        redeem_by = await insert_ticket(
            connection,
            hash_=_hash(secret),
            subject_kind=kind,
            subject_id=subject_id,
            holder=TicketHolder(principal.user, principal.role, principal.expires_at),
            redeem_within_s=_REDEEM_WITHIN_S,
        )
    return Ticket(ticket=f"tkt_{principal.workspace_id.hex}_{secret}", expires_at=redeem_by)


async def redeem_ticket(resources: Resources, text: str, kind: SubjectKind, subject_id: UUID) -> Principal:
    """Who minted the ticket, if it opens this subject now. Raises `unauthorized` for any other."""
    match = _TICKET.fullmatch(text)
    if match is None:
        raise _refused()
    workspace_id = UUID(match[1])
    async with workspace_transaction(resources.pool, workspace_id) as connection:
        holder = await update_ticket_redeemed(connection, _hash(match[2]), kind, subject_id)
    if holder is None:
        raise _refused()
    bind_contextvars(workspace_id=str(workspace_id))
    return Principal(holder.user, workspace_id, WorkspaceRole(holder.role), holder.expires_at)


def _subject(new: NewTicket) -> tuple[SubjectKind, UUID]:
    named: list[tuple[SubjectKind, UUID | None]] = [
        ("run", new.run_id),
        ("conversation", new.conversation_id),
        ("document", new.document_id),
    ]
    match [(kind, subject_id) for kind, subject_id in named if subject_id is not None]:
        case [subject]:
            return subject
        case _:
            raise invalid("body: name a runId, a conversationId or a documentId, one of them")


async def _exists(connection: Connection, kind: SubjectKind, subject_id: UUID) -> bool:
    match kind:
        case "run":
            return await select_run(connection, subject_id) is not None
        case "conversation":
            return await select_conversation(connection, subject_id) is not None
        case "document":
            return await select_document(connection, subject_id) is not None


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _refused() -> ThroughlineError:
    return ThroughlineError(ErrorCode.UNAUTHORIZED, "The ticket is not good here.")
