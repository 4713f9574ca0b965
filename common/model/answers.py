"""What the HTTP contract answers beside the bare resources."""

from datetime import datetime
from typing import Generic, Literal, TypeVar

from common.errors import ErrorCode
from common.model.messages import Conversation, Message, Run, Wire

T = TypeVar("T")


class Page(Wire, Generic[T], kw_only=True):
    """A piece of a list; `next_cursor` leads to the next one, null at the end."""

    data: list[T]
    next_cursor: str | None = None


class ConversationDetail(Conversation, kw_only=True):
    """A conversation with its current messages (null when not asked for) and the run that keeps it busy."""

    messages: list[Message] | None = None
    active_run: Run | None = None


class Accepted(Wire, kw_only=True):
    """A message that is stored; `run` and `stream_url` are null when it started none."""

    message: Message
    run: Run | None = None
    stream_url: str | None = None


class Ticket(Wire, kw_only=True):
    """Opens one stream without headers. First use before `expires_at`; reconnects until the token's own end."""

    ticket: str
    expires_at: datetime


class Health(Wire, kw_only=True):
    """Whether this process can do its work, and which of its two stores answers."""

    status: Literal["ok", "unavailable"]
    postgres: Literal["ok", "down"]
    redis: Literal["ok", "down"]


class Alive(Wire, kw_only=True):
    """This process answers."""

    status: Literal["ok"] = "ok"


class ErrorDetail(Wire, omit_defaults=True, kw_only=True):
    """`code` is for programs, `message` for people; `details` depends on the code and is left out when empty."""

    code: ErrorCode
    message: str
    details: dict[str, str] | None = None


class ErrorAnswer(Wire, kw_only=True):
    """The one form of every error."""

    error: ErrorDetail
