"""Edits of documents in the database, for whoever is not in their room: the API's PATCH, the tools of agents.

An edit is part of its caller's transaction. Under the row's lock nobody else edits, so what it was decided on is what
it changes; what people type at that moment comes after it, and stays.
"""

import secrets
from collections.abc import Callable
from typing import NamedTuple
from uuid import UUID

import structlog

from common.documents.edits import Splice, append
from common.documents.kinds import KINDS, MARKDOWN, Kind
from common.documents.replica import Replica, merged
from common.documents.update_scan import scan_update
from common.model.documents import MAX_DOCUMENT_BYTES, Document
from common.store.database import Connection
from common.store.document_log import (
    EMPTY,
    Actor,
    Stored,
    Update,
    append_updates,
    ensure_client,
    select_stored,
    upsert_snapshot,
    upsert_text,
)
from common.store.documents import insert_document, lock_document

_CLIENT_BITS = 32

_log = structlog.get_logger(__name__)

Edit = Callable[[str], list[Splice]]
"""Of a text: what to change in it. May raise, and then nothing is changed."""


class TooLarge(ValueError):
    """The document would be larger than a document may be."""


class Edited(NamedTuple):
    """A document after an edit. `update` is what to tell those who have it open; empty when nothing changed. `client`
    is who has edited, as Yjs sees it.
    """

    seq: int
    update: bytes
    text: str
    client: int


async def create_document(
    connection: Connection, workspace_id: UUID, document_id: UUID, name: str, content: str, actor: Actor
) -> Document:
    """The document, with `content` as its first update. Raises TooLarge."""
    document = await insert_document(connection, document_id, name, MARKDOWN.name, actor.id)
    if content:
        stored = Stored(document.kind, 0, [EMPTY])
        await _edit(connection, workspace_id, document_id, stored, lambda text: append(text, content), actor)
        locked = await lock_document(connection, document_id)
        assert locked is not None
        return locked
    return document


async def edit_document(
    connection: Connection, workspace_id: UUID, document_id: UUID, edit: Edit, actor: Actor
) -> Edited | None:
    """Carries out `edit`; None for a document that is not there. Raises what `edit` raises, and TooLarge."""
    if await lock_document(connection, document_id) is None:
        return None
    stored = await select_stored(connection, document_id)
    assert stored is not None, "its row is locked"
    return await _edit(connection, workspace_id, document_id, stored, edit, actor)


async def read_text(connection: Connection, document_id: UUID) -> tuple[int, str] | None:
    """The document's number and text; None for one that is not there."""
    stored = await select_stored(connection, document_id)
    if stored is None:
        return None
    replica = Replica(KINDS[stored.kind], stored.parts)
    text = replica.text
    replica.close()
    return stored.head_seq, text


async def _edit(
    connection: Connection, workspace_id: UUID, document_id: UUID, stored: Stored, edit: Edit, actor: Actor
) -> Edited:
    client = await ensure_client(connection, document_id, actor, secrets.randbits(_CLIENT_BITS))
    kind = KINDS[stored.kind]
    update, text = _carry_out(kind, stored.parts, client, edit)
    if not update:
        return Edited(stored.head_seq, b"", text, client)
    scan = scan_update(update, kind)
    seq = await append_updates(
        connection, workspace_id, document_id, [Update(update, scan.inserted, scan.removed, actor)]
    )
    assert seq is not None, "its row is locked"
    await upsert_text(connection, document_id, seq, text)
    if stored.has_long_tail:  # Where nobody has the document open, nobody else would make one.
        try:
            snapshot = merged(kind, [*stored.parts, update])
        except AssertionError:
            _log.exception("snapshot_not_made", document_id=str(document_id))  # The edit is none the worse for it.
        else:
            await upsert_snapshot(connection, document_id, seq, snapshot)
    return Edited(seq, update, text, client)


def _carry_out(kind: Kind, parts: list[bytes], client: int, edit: Edit) -> tuple[bytes, str]:
    replica = Replica(kind, parts, client)
    try:
        update = replica.edit(edit(replica.text))
        text = replica.text
    finally:
        replica.close()
    if len(text.encode()) > MAX_DOCUMENT_BYTES:
        raise TooLarge(f"a document has at most {MAX_DOCUMENT_BYTES} bytes")
    return update, text
