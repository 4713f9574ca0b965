"""Documents on the wire."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

import msgspec
from msgspec import UNSET, Meta, UnsetType

from common.model.messages import Wire
from common.model.requests import Name

MAX_DOCUMENT_BYTES = 10_000_000
"""Of UTF-8, as it reads."""

Markdown = Annotated[str, Meta(description="Markdown.")]


class Document(Wire, kw_only=True):
    """A text that people and agents edit together."""

    id: UUID
    name: str
    kind: Literal["markdown"]
    head_seq: Annotated[int, Meta(description="Its last update; rises with each, without a hole.")]
    created_by: str
    updated_by: Annotated[str, Meta(description="Who edited last: a user, or the user whose run it was.")]
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None = None


class DocumentDetail(Document, kw_only=True):
    """A document and what it says at `headSeq`."""

    content: Markdown


class DocumentEdit(Wire, kw_only=True):
    """What one actor did without a pause of a minute, or one call of a tool."""

    first_seq: int
    last_seq: Annotated[int, Meta(description="Others may have edited between the first and the last.")]
    actor_kind: Literal["user", "agent"]
    actor_id: Annotated[str, Meta(description="A user; of an agent the one whose run it was.")]
    run_id: UUID | None = None
    tool_call_id: str | None = None
    inserted: Annotated[int, Meta(description="UTF-16 units.")]
    removed: Annotated[int, Meta(description="UTF-16 units.")]
    began_at: datetime
    ended_at: datetime


class NewDocument(msgspec.Struct, rename="camel", kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/documents`"""

    name: Name
    content: Markdown = ""


class DocumentChange(msgspec.Struct, rename="camel", kw_only=True, forbid_unknown_fields=True):
    """`PATCH /v1/documents/{id}`; of the content only what differs is edited, so that nobody's cursor jumps."""

    name: Name | UnsetType = UNSET
    content: Markdown | UnsetType = UNSET
