"""Documents. What they say is also edited in their rooms; here an edit is one transaction."""

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from typing import Annotated, NamedTuple
from uuid import UUID

import msgspec
from litestar import Router, delete, get, patch, post
from litestar.params import FromPath, JSONBody, QueryParameter
from msgspec import UNSET, Meta

from api.auth import Principal, authenticate
from api.errors import invalid, not_found
from api.pagination import DEFAULT_LIMIT, CursorText, Limit, ListCursor, NewestFirst
from api.routes.injection import Asker, Process
from api.routes.refusals import refusals
from common.documents.announcements import announce_deletion, announce_edit
from common.documents.editing import TooLarge, create_document, edit_document, read_text
from common.documents.edits import rewrite
from common.errors import ErrorCode, ThroughlineError
from common.ids import new_id
from common.model.answers import Page
from common.model.documents import Document, DocumentChange, DocumentDetail, DocumentEdit, NewDocument
from common.redis import REDIS_DOWN
from common.store.database import Connection, workspace_transaction
from common.store.document_log import Actor, select_edits
from common.store.documents import (
    select_document,
    select_documents,
    update_document_deleted,
    update_document_name,
    update_document_restored,
)

Words = Annotated[
    str | None,
    QueryParameter(
        name="q", max_length=200, description="Words of the name or the text, or what they begin with; all of them."
    ),
]


Deleted = Annotated[
    bool, QueryParameter(description="Those that were deleted, and can be restored, instead of those that are there.")
]

_TELL_S = 1.0


class _Before(NamedTuple):
    """The position in a document's history."""

    first_seq: Annotated[int, Meta(ge=0, lt=2**63)]


@post("/", responses=refusals(413, 415))
async def post_document(resources: Process, principal: Asker, data: JSONBody[NewDocument]) -> DocumentDetail:
    """Makes a document."""
    try:
        async with workspace_transaction(resources.pool, principal.workspace_id) as connection:
            document = await create_document(
                connection, principal.workspace_id, new_id(), data.name, data.content, _actor(principal)
            )
    except TooLarge as error:
        raise _too_large(error) from None
    return _detail(document, data.content)


@get("/", responses=refusals())
async def list_documents(
    resources: Process,
    principal: Asker,
    limit: Limit = DEFAULT_LIMIT,
    cursor: CursorText = None,
    q: Words = None,
    deleted: Deleted = False,
) -> Page[Document]:
    """Lists documents, newest first. What is being typed is found after some seconds."""
    if q is not None and "\x00" in q:
        raise invalid("q: text may not contain U+0000")
    cursors = ListCursor("documents", principal.workspace_id, q, deleted)
    before = cursors.read(cursor, NewestFirst)
    async with workspace_transaction(resources.pool, principal.workspace_id) as connection:
        found = await select_documents(connection, words=q or None, before=before, limit=limit + 1, deleted=deleted)
    return cursors.page(found, limit, lambda document: (document.created_at, document.id))


@get("/{document_id:uuid}", responses=refusals(404))
async def get_document(resources: Process, principal: Asker, document_id: FromPath[UUID]) -> DocumentDetail:
    """Reads a document as it is committed at this moment."""
    async with workspace_transaction(resources.pool, principal.workspace_id) as connection:
        return await _read(connection, document_id)


@patch("/{document_id:uuid}", responses=refusals(404, 413, 415))
async def change_document(
    resources: Process, principal: Asker, document_id: FromPath[UUID], data: JSONBody[DocumentChange]
) -> DocumentDetail:
    """Renames a document, or edits it so that it says `content`: lines that stay are not touched."""
    wanted = data.content
    try:
        async with workspace_transaction(resources.pool, principal.workspace_id) as connection:
            if data.name is not UNSET and await update_document_name(connection, document_id, data.name) is None:
                raise not_found()
            edited = None
            if wanted is not UNSET:
                edited = await edit_document(
                    connection,
                    principal.workspace_id,
                    document_id,
                    lambda text: rewrite(text, wanted),
                    _actor(principal),
                )
            document = await _read(connection, document_id)
    except TooLarge as error:
        raise _too_large(error) from None
    if edited is not None:
        await _tell(announce_edit(resources.redis, document_id, edited))
    return document


@delete("/{document_id:uuid}", responses=refusals(404))
async def delete_document(resources: Process, principal: Asker, document_id: FromPath[UUID]) -> None:
    """Deletes a document; it can be restored."""
    async with workspace_transaction(resources.pool, principal.workspace_id) as connection:
        if not await update_document_deleted(connection, document_id):
            raise not_found()
    await _tell(announce_deletion(resources.redis, document_id))


@post("/{document_id:uuid}/restore", status_code=200, responses=refusals(404))
async def restore_document(resources: Process, principal: Asker, document_id: FromPath[UUID]) -> Document:
    """Takes a deletion back. Twice, or without one, is fine."""
    async with workspace_transaction(resources.pool, principal.workspace_id) as connection:
        document = await update_document_restored(connection, document_id)
    if document is None:
        raise not_found()
    return document


@get("/{document_id:uuid}/history", responses=refusals(404))
async def list_document_edits(
    resources: Process,
    principal: Asker,
    document_id: FromPath[UUID],
    limit: Limit = DEFAULT_LIMIT,
    cursor: CursorText = None,
) -> Page[DocumentEdit]:
    """Lists who edited, when and in which run, newest first."""
    cursors = ListCursor("document edits", principal.workspace_id, document_id)
    before = cursors.read(cursor, _Before)
    async with workspace_transaction(resources.pool, principal.workspace_id) as connection:
        if await select_document(connection, document_id) is None:
            raise not_found()
        edits = await select_edits(
            connection, document_id, before=None if before is None else before.first_seq, limit=limit + 1
        )
    return cursors.page(edits, limit, lambda edit: (edit.first_seq,))


async def _tell(announcement: Awaitable[None]) -> None:
    """Nobody waits long for it: who has the document open looks by themselves every few seconds."""
    with suppress(*REDIS_DOWN, TimeoutError):
        async with asyncio.timeout(_TELL_S):
            await announcement


async def _read(connection: Connection, document_id: UUID) -> DocumentDetail:
    # Locked against nothing: what is read twice may differ, so the text says which number it is of.
    found = await read_text(connection, document_id)
    document = None if found is None else await select_document(connection, document_id)
    if found is None or document is None:
        raise not_found()
    document.head_seq, text = found
    return _detail(document, text)


def _detail(document: Document, content: str) -> DocumentDetail:
    return DocumentDetail(**msgspec.structs.asdict(document), content=content)


def _actor(principal: Principal) -> Actor:
    return Actor("user", principal.user)


def _too_large(error: TooLarge) -> ThroughlineError:
    return ThroughlineError(ErrorCode.PAYLOAD_TOO_LARGE, f"content: {error}")


documents = Router(
    "/v1/documents",
    guards=[authenticate],
    tags=["Documents"],
    route_handlers=[
        post_document,
        list_documents,
        get_document,
        change_document,
        delete_document,
        restore_document,
        list_document_edits,
    ],
)
