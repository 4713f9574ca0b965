"""What a document is made of: a snapshot, and the updates after it; and who is behind them."""

from collections.abc import Sequence
from typing import Literal, NamedTuple
from uuid import UUID

from common.model.clean import clean
from common.model.documents import DocumentEdit
from common.store.database import Connection, Pool

_LONG_TAIL = 500
_LONG_TAIL_BYTES = 512 * 1024


EMPTY = b"\0\0"
"""The update that changes nothing."""


class Actor(NamedTuple):
    """Who edits. An agent acts in a call of its run, under the name of the user whose run it is."""

    kind: Literal["user", "agent"]
    id: str
    run_id: UUID | None = None
    tool_call_id: str | None = None


class Update(NamedTuple):
    """An update that is new in the document, whose it is, and how many UTF-16 units it adds and takes."""

    data: bytes
    inserted: int
    removed: int
    actor: Actor


class Stored(NamedTuple):
    """A document at `head_seq`: applied in order, `parts` make it, of which the first is the snapshot. Lists and
    searches see it as of `text_seq`.
    """

    kind: str
    head_seq: int
    parts: list[bytes]
    text_seq: int = 0

    @property
    def has_long_tail(self) -> bool:
        """Whether a snapshot is due."""
        tail = self.parts[1:]
        return is_long_tail(len(tail), sum(map(len, tail)))


class Position(NamedTuple):
    """Where a document stands."""

    document_id: UUID
    head_seq: int
    is_deleted: bool
    has_long_tail: bool


def is_long_tail(count: int, size: int) -> bool:
    """Whether so many updates of so many bytes in all are worth a snapshot."""
    return count >= _LONG_TAIL or size >= _LONG_TAIL_BYTES


async def select_stored(connection: Connection, document_id: UUID) -> Stored | None:
    """The document, unless it is deleted. One statement: a compaction comes before all of it, or after."""
    row = await connection.fetchrow(
        """
        select d.kind, d.head_seq, s.data as snapshot, coalesce(t.seq, 0) as text_seq,
               (select array_agg(u.data order by u.seq) from document_updates u
                where u.document_id = d.id and u.seq > d.snapshot_seq) as tail
        from documents d
        left join document_snapshots s on s.document_id = d.id
        left join document_texts t on t.document_id = d.id
        where d.id = $1 and d.deleted_at is null
        """,
        document_id,
    )
    if row is None:
        return None
    return Stored(row["kind"], row["head_seq"], [row["snapshot"] or EMPTY, *(row["tail"] or [])], row["text_seq"])


async def select_updates_after(connection: Connection, document_id: UUID, seq: int) -> list[tuple[int, bytes]] | None:
    """The updates after `seq` with their numbers, in order; None where a snapshot has taken the place of some, and for
    a document that is not there.
    """
    row = await connection.fetchrow(
        """
        select (select array_agg(u.seq order by u.seq) from document_updates u
                where u.document_id = d.id and u.seq > $2) as numbers,
               (select array_agg(u.data order by u.seq) from document_updates u
                where u.document_id = d.id and u.seq > $2) as tail
        from documents d where d.id = $1 and d.deleted_at is null and d.snapshot_seq <= $2
        """,
        document_id,
        seq,
    )
    return None if row is None else list(zip(row["numbers"] or [], row["tail"] or [], strict=True))


async def poll_documents(pool: Pool, documents: Sequence[tuple[UUID, UUID]]) -> list[Position]:
    """Where these documents stand, each named by workspace and id, in one query. The caller has shown before that it
    may see them.
    """
    rows = await pool.fetch(
        "select * from poll_documents($1, $2)",
        [workspace_id for workspace_id, _ in documents],
        [document_id for _, document_id in documents],
    )
    return [
        Position(
            row["document_id"], row["head_seq"], row["deleted"], is_long_tail(row["tail_count"], row["tail_bytes"])
        )
        for row in rows
    ]


async def upsert_snapshot(connection: Connection, document_id: UUID, seq: int, data: bytes) -> bool:
    """Puts `data` in the place of the updates up to `seq`; False where something has taken it already.

    The row's lock is taken first, so that nobody reads a tail without its snapshot.
    """
    taken = await connection.fetchval(
        """
        update documents set snapshot_seq = $2
        where id = $1 and snapshot_seq < $2 and head_seq >= $2 and deleted_at is null returning true
        """,
        document_id,
        seq,
    )
    if not taken:
        return False
    await connection.execute(
        """
        with gone as (
            delete from document_updates where document_id = $1 and seq <= $2 returning octet_length(data) as size
        ), changed as (
            update documents d
            set tail_count = d.tail_count - gone.count, tail_bytes = d.tail_bytes - gone.size
            from (select count(*)::integer as count, coalesce(sum(size), 0) as size from gone) gone
            where d.id = $1
        )
        insert into document_snapshots (workspace_id, document_id, seq, data)
        values (current_workspace(), $1, $2, $3)
        on conflict (workspace_id, document_id) do update set seq = excluded.seq, data = excluded.data,
            created_at = clock_timestamp()
        """,
        document_id,
        seq,
        data,
    )
    return True


async def append_updates(
    connection: "Connection | Pool", workspace_id: UUID, document_id: UUID, updates: Sequence[Update]
) -> int | None:
    """The number of the last of `updates`, which follow each other; None for a document that is not there.

    Of a tool call only one update may come. Outside of a transaction it is one of its own.
    """
    last = updates[-1].actor
    head = await connection.fetchval(
        "select append_document_updates($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        workspace_id,
        document_id,
        [update.data for update in updates],
        [update.inserted for update in updates],
        [update.removed for update in updates],
        [update.actor.kind for update in updates],
        [update.actor.id for update in updates],
        last.run_id,
        last.tool_call_id,
    )
    return None if head is None else int(head)


async def upsert_text(connection: Connection, document_id: UUID, seq: int, content: str) -> None:
    """What lists and searches see, unless they see something newer."""
    await connection.execute(
        """
        insert into document_texts (workspace_id, document_id, seq, content)
        values (current_workspace(), $1, $2, $3)
        on conflict (workspace_id, document_id) do update set seq = excluded.seq, content = excluded.content
        where document_texts.seq < excluded.seq
        """,
        document_id,
        seq,
        clean(content),
    )


async def select_edits(
    connection: Connection, document_id: UUID, *, before: int | None, limit: int
) -> list[DocumentEdit]:
    """Newest first; `before` is the `firstSeq` of the last one seen."""
    rows = await connection.fetch(
        """
        select first_seq, last_seq, actor_kind, actor_id, run_id, tool_call_id, inserted, removed, began_at, ended_at
        from document_changes where document_id = $1 and ($2::bigint is null or first_seq < $2)
        order by first_seq desc limit $3
        """,
        document_id,
        before,
        limit,
    )
    return [DocumentEdit(**row) for row in rows]


async def ensure_client(connection: Connection, document_id: UUID, actor: Actor, proposed: int) -> int:
    """The client id under which the server edits for this actor: the one that they had, else `proposed`."""
    return int(
        await connection.fetchval(
            """
            insert into document_clients (workspace_id, document_id, client, actor_kind, actor_id, run_id,
                                          taken_by_server)
            values (current_workspace(), $1, $2, $3, $4, $5, true)
            on conflict (workspace_id, document_id, actor_id, run_id) where taken_by_server
                do update set client = document_clients.client
            returning client
            """,
            document_id,
            proposed,
            actor.kind,
            actor.id,
            actor.run_id,
        )
    )


async def insert_clients(connection: Connection, document_id: UUID, clients: Sequence[int], actor: Actor) -> None:
    """Notes who is behind these client ids; who was noted first stays."""
    await connection.execute(
        """
        insert into document_clients (workspace_id, document_id, client, actor_kind, actor_id, taken_by_server)
        select current_workspace(), $1, client, $3, $4, false from unnest($2::bigint[]) client
        on conflict (workspace_id, document_id, client) do nothing
        """,
        document_id,
        clients,
        actor.kind,
        actor.id,
    )
