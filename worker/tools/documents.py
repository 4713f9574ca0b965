"""The tools by which agents read and write the documents of their workspace.

An edit is transactional: it is committed with its call's result, exactly once, and those who have the document open see
it within the same moment. What people type meanwhile stays.
"""

from functools import partial
from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import Meta

from common.documents.announcements import announce_deletion, announce_edit, announce_visit
from common.documents.editing import Edit, TooLarge, create_document, edit_document, read_text
from common.documents.edits import NotOnce, append, replace_once
from common.ids import new_id
from common.model.requests import Name
from common.model.run_state import Effect
from common.store.agents import select_agent_name
from common.store.document_log import Actor
from common.store.documents import select_document, select_documents, update_document_deleted
from worker.tools.base import ToolContext, ToolError, tool
from worker.tools.transaction import ReadContext, TransactionContext

_LISTED = 50

DocumentId = Annotated[UUID, Meta(description="The document's id, from doc_list, doc_search or doc_create.")]
Words = Annotated[str, Meta(min_length=1, max_length=200)]


class Found(msgspec.Struct, rename="camel"):
    """What the model reads of a document in a list."""

    id: UUID
    name: str
    updated_at: str
    updated_by: str


class Contents(msgspec.Struct, rename="camel"):
    """What the model reads of a document."""

    id: UUID
    name: str
    content: str


class Written(msgspec.Struct, rename="camel"):
    """What the model reads of its edit."""

    id: UUID
    name: str
    characters: int


@tool(effect=Effect.READ)
async def doc_list(context: ReadContext) -> list[Found]:
    """Lists the newest documents of the workspace: their ids and names. Use doc_search to find older ones."""
    return await _find(context, None)


@tool(effect=Effect.READ)
async def doc_search(query: Words, context: ReadContext) -> list[Found]:
    """Finds documents of the workspace by words of their name or text.

    Args:
        query: Words that must all occur; each may be the beginning of a word.
    """
    return await _find(context, query)


@tool(effect=Effect.READ)
async def doc_read(id: DocumentId, context: ReadContext) -> Contents:
    """Reads a document: markdown, as it is at this moment. People may be editing it."""
    document = await select_document(context.connection, id)
    found = await read_text(context.connection, id)
    if document is None or found is None:
        raise _missing(id)
    return Contents(id, document.name, found[1])


@tool(effect=Effect.TRANSACTIONAL)
async def doc_create(name: Name, context: TransactionContext, content: str = "") -> Written:
    """Makes a document in the workspace.

    Args:
        name: What it is called.
        content: Its text, in markdown.
    """
    try:
        document = await create_document(
            context.connection, context.workspace_id, new_id(), name, content, _actor(context)
        )
    except TooLarge as error:
        raise ToolError(f"Not made: {error}.") from None
    return Written(document.id, document.name, len(content))


@tool(effect=Effect.TRANSACTIONAL)
async def doc_edit(id: DocumentId, old_text: str, new_text: str, context: TransactionContext) -> Written:
    """Replaces one piece of a document's text. The piece must occur exactly once: take as much of its surroundings as
    makes it unique. Everything else stays, also what people type at the same moment.

    Args:
        old_text: The piece as it stands in the document, to the letter.
        new_text: What takes its place; empty to delete the piece.
    """
    return await _edit(context, id, lambda text: replace_once(text, old_text, new_text))


@tool(effect=Effect.TRANSACTIONAL)
async def doc_append(id: DocumentId, content: str, context: TransactionContext) -> Written:
    """Adds text at the end of a document.

    Args:
        content: What to add, in markdown. Begin it with a newline where a new line is meant.
    """
    return await _edit(context, id, lambda text: append(text, content))


@tool(effect=Effect.TRANSACTIONAL)
async def doc_delete(id: DocumentId, context: TransactionContext) -> str:
    """Deletes a document. People can restore it."""
    if not await update_document_deleted(context.connection, id):
        raise _missing(id)
    context.afterwards.append(partial(announce_deletion, document_id=id))
    return "Deleted."


DOCUMENT_TOOLS = (doc_list, doc_search, doc_read, doc_create, doc_edit, doc_append, doc_delete)


async def _find(context: ReadContext, words: str | None) -> list[Found]:
    documents = await select_documents(context.connection, words=words, before=None, limit=_LISTED)
    return [Found(found.id, found.name, found.updated_at.isoformat(), found.updated_by) for found in documents]


async def _edit(context: TransactionContext, document_id: UUID, edit: Edit) -> Written:
    try:
        edited = await edit_document(context.connection, context.workspace_id, document_id, edit, _actor(context))
    except NotOnce as error:
        hint = "Read the document again." if error.times == 0 else "Take more of what surrounds it."
        raise ToolError(f"Nothing was changed: old_text is there {error.times} times. {hint}") from None
    except TooLarge as error:
        raise ToolError(f"Nothing was changed: {error}.") from None
    document = None if edited is None else await select_document(context.connection, document_id)
    if edited is None or document is None:
        raise _missing(document_id)
    name = await select_agent_name(context.connection, context.run_id) or "Agent"
    context.afterwards.append(partial(announce_edit, document_id=document_id, edited=edited))
    context.afterwards.append(partial(announce_visit, document_id=document_id, edited=edited, name=name))
    return Written(document_id, document.name, len(edited.text))


def _actor(context: ToolContext) -> Actor:
    return Actor("agent", context.user, context.run_id, context.tool_call_id)


def _missing(document_id: UUID) -> ToolError:
    return ToolError(f"There is no document {document_id}.")
