"""What those who have a document open are told by whoever changes it from outside: the API's routes, an agent's tools.

To be sent once the change is committed. It may be lost: then it is seen some seconds later.
"""

import time
from uuid import UUID, uuid4

import msgspec
from redis.asyncio import Redis

from common.documents.awareness import Entry, Present, write_present
from common.documents.channel import Kind, Note, publish
from common.documents.editing import Edited
from common.documents.kinds import MARKDOWN
from common.documents.update_scan import scan_update

_OUTSIDE = uuid4()
"""No room of any API's: all of them are to hear of it."""
_NOBODY = ""
"""No user: no connection may speak for an agent."""
_COLOR = "#7c5cff"


async def announce_edit(redis: Redis, document_id: UUID, edited: Edited) -> None:
    """Shows an edit. Raises one of REDIS_DOWN."""
    if edited.update:
        await publish(redis, document_id, Note(Kind.UPDATE, _OUTSIDE, edited.seq, edited.update))


async def announce_visit(redis: Redis, document_id: UUID, edited: Edited, name: str) -> None:
    """Shows an agent at work where it has just edited. Raises one of REDIS_DOWN."""
    await publish(redis, document_id, Note(Kind.VISIT, _OUTSIDE, 0, _visit(edited, name)))


async def announce_deletion(redis: Redis, document_id: UUID) -> None:
    """Closes the document for all who have it open. Raises one of REDIS_DOWN."""
    await publish(redis, document_id, Note(Kind.DELETED, _OUTSIDE))


def _visit(edited: Edited, name: str) -> bytes:
    """The agent is there; the clock only has to rise, whichever worker it is from."""
    state: dict[str, object] = {"user": {"name": name, "color": _COLOR, "colorLight": f"{_COLOR}33", "agent": True}}
    if edited.update and (span := scan_update(edited.update, MARKDOWN).spans.get(edited.client)) is not None:
        # Behind the last character that it has written, as Yjs writes relative positions in JSON.
        place = {
            "type": None,
            "tname": MARKDOWN.root,
            "item": {"client": edited.client, "clock": span.end - 1},
            "assoc": -1,
        }
        state["cursor"] = {"anchor": place, "head": place}
    entry = Entry(edited.client, int(time.time() * 1000), msgspec.json.encode(state).decode())
    return write_present([Present(entry, _NOBODY)])
