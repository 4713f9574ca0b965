"""One of each thing that crosses from process to process, or outlives one, as today's code writes it."""

import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast
from uuid import UUID

from arq.constants import job_key_prefix
from arq.jobs import serialize_job
from redis.asyncio import Redis

from api.auth import Principal, WorkspaceRole
from api.commands.chat_names import chat_id, message_ids
from api.commands.idempotency import once
from api.pagination import ListCursor, NewestFirst
from common.documents.awareness import Entry, Present, write_present
from common.documents.channel import Kind, Note, document_channel, publish
from common.eventlog.keys import cancel_channel, events_key, head_key, live_channel
from common.eventlog.signals import publish_cancel
from common.ids import EventId
from common.model.events import Done, Started, encode_event
from common.model.messages import Usage
from common.model.requests import NewMessage, Regeneration
from common.model.run_state import FinishReason, Priority
from common.queue import JOB, QUEUES, serialize, wake_of

ID = UUID("0198f3a0-0000-7000-8000-000000000001")
OTHER = UUID("0198f3a0-0000-7000-8000-000000000002")
SOMEBODY = Principal("alice", ID, WorkspaceRole.MEMBER, datetime(2027, 1, 1, tzinfo=UTC))
PRESENT = [Present(Entry(7, 3, '{"user":{"name":"Ada"}}'), "ada")]
NOTES = [
    Note(Kind.UPDATE, OTHER, 12, b"\x01\x02update"),
    Note(Kind.AWARENESS, OTHER, 0, write_present(PRESENT)),
    Note(Kind.QUERY, OTHER),
    Note(Kind.VISIT, OTHER, 0, write_present(PRESENT)),
    Note(Kind.DELETED, OTHER),
]
STARTED = Started(
    run_id=ID, conversation_id=OTHER, trigger_message_id=ID, provider="echo", model="echo", attempt=2, messages=[]
)
DONE = Done(message_id=OTHER, usage=Usage(input_tokens=3), step_count=1, finish_reason=FinishReason.STOP)
POSITION = NewestFirst(datetime(2026, 11, 21, 20, 30, tzinfo=UTC), OTHER)


class _Told:
    """Stands for Redis, and keeps what was published."""

    def __init__(self) -> None:
        self.said: list[bytes] = []

    async def publish(self, channel: str, message: "bytes | str") -> None:
        """Keeps it."""
        self.said.append(f"{channel} ".encode() + (message.encode() if isinstance(message, str) else message))


async def samples() -> dict[str, bytes]:
    """By what they are."""
    told, queue = _Told(), QUEUES[Priority.INTERACTIVE]
    await publish_cancel(cast(Redis, told), ID)
    for note in NOTES:
        await publish(cast(Redis, told), ID, note)
    return {
        "keys": " ".join(
            (events_key(ID), head_key(ID), live_channel(ID), cancel_channel(), document_channel(ID))
        ).encode(),
        "queue": " ".join((job_key_prefix, queue, wake_of(queue))).encode(),
        "job": serialize_job(JOB, (str(ID),), {}, None, 1_800_000_000_000, serializer=serialize),
        "started": encode_event(STARTED),
        "done": encode_event(DONE),
        "event id": str(EventId(2, 7)).encode(),
        "told": b"\n".join(base64.b64encode(one) for one in told.said),
        "list cursor": ListCursor("runs", ID, OTHER, None).write(POSITION).encode(),
        "chat names": " ".join(map(str, (chat_id("my-chat"), *message_ids(ID, "msg-1")))).encode(),
        "message": once(SOMEBODY, "k", "start_run", ID, NewMessage(content="hi")).request_hash,
        "regeneration": once(SOMEBODY, "k", "regenerate", ID, OTHER, Regeneration(model="m")).request_hash,
    }


def read_samples(folder: Path) -> dict[str, bytes]:
    """What a version wrote."""
    texts: dict[str, Any] = json.loads((folder / "samples.json").read_text("utf-8"))
    return {name: text.encode("latin-1") for name, text in texts.items()}
