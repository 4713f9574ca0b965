"""Tickets: what opens one stream or document for a client that can send no headers. Only their hash is stored."""

from datetime import datetime
from typing import Literal, NamedTuple
from uuid import UUID

from common.store.database import Connection

SubjectKind = Literal["run", "conversation", "document"]


class TicketHolder(NamedTuple):
    """Who minted a ticket, and until when it is good."""

    user: str
    role: str
    expires_at: datetime


async def insert_ticket(
    connection: Connection,
    *,
    hash_: bytes,
    subject_kind: SubjectKind,
    subject_id: UUID,
    holder: TicketHolder,
    redeem_within_s: float,
) -> datetime:
    """The time until which the ticket must be used first: never past the end of its holder's token."""
    redeem_by: datetime = await connection.fetchval(
        """
        insert into tickets (workspace_id, hash, subject_kind, subject_id, user_id, role, redeem_by, expires_at)
        values (current_workspace(), $1, $2, $3, $4, $5,
                least($7, clock_timestamp() + make_interval(secs => $6)), $7)
        returning redeem_by
        """,
        hash_,
        subject_kind,
        subject_id,
        holder.user,
        holder.role,
        redeem_within_s,
        holder.expires_at,
    )
    return redeem_by


async def update_ticket_redeemed(
    connection: Connection, hash_: bytes, subject_kind: SubjectKind, subject_id: UUID
) -> TicketHolder | None:
    """The holder, if the ticket is good for this subject now; the first time decides about all later ones."""
    row = await connection.fetchrow(
        """
        update tickets set redeemed_at = coalesce(redeemed_at, clock_timestamp())
        where hash = $1 and subject_kind = $2 and subject_id = $3 and expires_at > clock_timestamp()
          and (redeemed_at is not null or redeem_by > clock_timestamp())
        returning user_id, role, expires_at
        """,
        hash_,
        subject_kind,
        subject_id,
    )
    return None if row is None else TicketHolder(row["user_id"], row["role"], row["expires_at"])
