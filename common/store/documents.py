"""Documents: their rows, and the lists made of these. A row is the lock under which its updates are numbered."""

from datetime import datetime
from uuid import UUID

from common.model.documents import Document
from common.store.database import Connection

_COLUMNS = "id, name, kind, head_seq, created_by, updated_by, created_at, updated_at, deleted_at"
_LIST_COLUMNS = ", ".join(f"d.{column}" for column in _COLUMNS.split(", "))


async def insert_document(connection: Connection, document_id: UUID, name: str, kind: str, created_by: str) -> Document:
    """The document as inserted: empty."""
    row = await connection.fetchrow(
        f"""
        insert into documents (workspace_id, id, name, kind, created_by, updated_by)
        values (current_workspace(), $1, $2, $3, $4, $4)
        returning {_COLUMNS}
        """,
        document_id,
        name,
        kind,
        created_by,
    )
    return Document(**row)


async def select_document(connection: Connection, document_id: UUID) -> Document | None:
    """The document, unless it is deleted."""
    row = await connection.fetchrow(
        f"select {_COLUMNS} from documents where id = $1 and deleted_at is null", document_id
    )
    return None if row is None else Document(**row)


async def lock_document(connection: Connection, document_id: UUID) -> Document | None:
    """The document, held against other edits until the transaction is over."""
    row = await connection.fetchrow(
        f"select {_COLUMNS} from documents where id = $1 and deleted_at is null for no key update", document_id
    )
    return None if row is None else Document(**row)


async def select_documents(
    connection: Connection,
    *,
    words: str | None,
    before: tuple[datetime, UUID] | None,
    limit: int,
    deleted: bool = False,
) -> list[Document]:
    """Newest first; those whose name or text has all of `words`, the last of each may go on. Either those that are
    there, or those that were deleted.
    """
    rows = await connection.fetch(
        f"""
        with wanted as (
            select string_agg(quote_literal(lexeme) || ':*', ' & ')::tsquery as query
            from unnest(to_tsvector('simple', $1::text))
        )
        select {_LIST_COLUMNS} from documents d
        left join document_texts t on t.document_id = d.id
        cross join wanted
        where d.deleted_at is {"not null" if deleted else "null"}
          and ($2::timestamptz is null or (d.created_at, d.id) < ($2, $3))
          and ($1 is null or (to_tsvector('simple', d.name) || coalesce(t.words, '')) @@ wanted.query)
        order by d.created_at desc, d.id desc limit $4
        """,
        words,
        before[0] if before else None,
        before[1] if before else None,
        limit,
    )
    return [Document(**row) for row in rows]


async def update_document_name(connection: Connection, document_id: UUID, name: str) -> Document | None:
    """The document under its new name; None when there is none."""
    row = await connection.fetchrow(
        f"""
        update documents set name = $2, updated_at = clock_timestamp() where id = $1 and deleted_at is null
        returning {_COLUMNS}
        """,
        document_id,
        name,
    )
    return None if row is None else Document(**row)


async def update_document_deleted(connection: Connection, document_id: UUID) -> bool:
    """Whether there was a document to delete."""
    return bool(
        await connection.fetchval(
            "update documents set deleted_at = clock_timestamp() where id = $1 and deleted_at is null returning true",
            document_id,
        )
    )


async def update_document_restored(connection: Connection, document_id: UUID) -> Document | None:
    """The document, no longer deleted if it was; None when there is none."""
    row = await connection.fetchrow(
        f"update documents set deleted_at = null where id = $1 returning {_COLUMNS}", document_id
    )
    return None if row is None else Document(**row)
