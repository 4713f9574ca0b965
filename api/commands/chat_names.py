"""Names of chats and messages that clients make up, as ours. The same name always gives the same id, so that posting
twice is posting once; ids only count within a workspace, so nobody meets another one's."""

import re
from uuid import UUID, uuid5

from api.errors import invalid

_NAMESPACE = UUID("5a0f6d38-6f3b-4d43-9a3c-2f1c1de0a7b4")
# Never changed: every chat that has no UUID for a name would be lost.
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", re.ASCII)
_CHAT = re.compile(r"(?!\.\.?$)[\x21-\x2e\x30-\x7e]{1,200}", re.ASCII)
_MAX_MESSAGE_NAME = 200


def chat_id(name: str) -> UUID:
    """The conversation of that name: of that id if it is a UUID. Raises `invalid_request`."""
    if not _CHAT.fullmatch(name):
        # As it stands in the path of the stream, where a slash or dots would name something else.
        raise invalid("id: 1 to 200 visible ASCII characters, no slash, and not just dots")
    return read_uuid(name) or uuid5(_NAMESPACE, name)


def message_ids(conversation_id: UUID, name: str) -> list[UUID]:
    """Under which ids a message of that name may be stored; a new one gets the last. Raises `invalid_request`."""
    if not 1 <= len(name) <= _MAX_MESSAGE_NAME:
        raise invalid(f"messages: an id has 1 to {_MAX_MESSAGE_NAME} characters")
    ours = read_uuid(name)
    derived = uuid5(conversation_id, name)
    return [derived] if ours is None else [ours, derived]


def read_uuid(text: str) -> UUID | None:
    """The UUID that `text` is, in its usual form."""
    return UUID(text) if _UUID.fullmatch(text) else None
