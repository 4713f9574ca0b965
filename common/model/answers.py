"""What the HTTP contract answers beside the bare resources."""

from typing import Annotated, Generic, Literal, TypeVar

from msgspec import Meta

from common.errors import ErrorCode
from common.model.messages import Conversation, Message, Run, Time, Wire

T = TypeVar("T")


class Page(Wire, Generic[T], kw_only=True):
    """A piece of a list."""

    data: list[T]
    next_cursor: Annotated[str | None, Meta(description="Send it as `cursor` for the next piece; null at the end.")] = (
        None
    )


class ConversationDetail(Conversation, kw_only=True):
    """A conversation with its messages. `activeRun` keeps it busy; `lastRun` is that one, else the newest: it shows the
    `error` of a run that failed and the `partialText` of one that failed or was cancelled."""

    messages: Annotated[list[Message] | None, Meta(description="The current ones; null when not asked for.")] = None
    active_run: Run | None = None
    last_run: Run | None = None


class Accepted(Wire, kw_only=True):
    """A message that is stored; `run` and `streamUrl` are null when it started none."""

    message: Message
    run: Run | None = None
    stream_url: Annotated[str | None, Meta(description="The path of the run's stream.")] = None


class Ticket(Wire, kw_only=True):
    """Opens one stream without headers. First use before `expiresAt`; reconnects until the token's own end."""

    ticket: Annotated[str, Meta(description="Goes into `?ticket=` of just this stream.")]
    expires_at: Time


class Health(Wire, kw_only=True):
    """Whether this process can do its work, and which of its two stores answers.

    `degraded`: without Redis messages are taken and runs go on, but their events come late. `unavailable`: without
    Postgres nothing is taken; `behind`, it lacks migrations of this version.
    """

    status: Literal["ok", "degraded", "unavailable"]
    postgres: Literal["ok", "down", "behind"]
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
