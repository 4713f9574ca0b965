"""What the fake model server is to answer, whichever wire it is asked over."""

from typing import Any, Literal

import msgspec

MidwayError = Literal["overloaded", "rate_limited", "server", "rejected"]


class Call(msgspec.Struct, frozen=True):
    """A tool call; `arguments` as a string is sent as it is, also when it is no JSON."""

    name: str
    arguments: dict[str, Any] | str = {}
    id: str | None = None

    @property
    def json(self) -> str:
        """The arguments' text as the model writes it."""
        if isinstance(self.arguments, str):
            return self.arguments
        return msgspec.json.encode(self.arguments).decode()


class TokenCounts(msgspec.Struct, frozen=True, kw_only=True):
    """What the answer cost; `input` includes the cached and the written ones."""

    input: int = 25
    output: int = 12
    cached: int = 0
    written: int = 0
    reasoning: int = 0


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """One answer. With `body`, or a `status` other than 200, a plain answer that is no stream, with `headers`.

    `text` and `reasoning` are sent word by word. `error` ends the stream in its middle. `raw` replaces the body.
    `gzip` compresses it as a whole.
    `cut_at` ends it after so many bytes: as a lost connection, or, with `framing` "close", as if it were complete.
    `hang_after` sends so many frames and then nothing more (0: not even headers); `pause_s` is the pause before each.
    """

    text: str = ""
    reasoning: str = ""
    calls: tuple[Call, ...] = ()
    stop: Literal["stop", "length", "refusal"] = "stop"
    tokens: TokenCounts = TokenCounts()
    error: MidwayError | None = None
    status: int = 200
    headers: dict[str, str] = {}
    body: dict[str, Any] | str | None = None
    raw: bytes | None = None
    cut_at: int | None = None
    framing: Literal["chunked", "close"] = "chunked"
    hang_after: int | None = None
    pause_s: float = 0
    split: int | None = None
    gzip: bool = False


def pieces(text: str, size: int = 0) -> list[str]:
    """`text` word by word, or, given a size, in pieces of that many characters; joined they are `text` again."""
    if size:
        return [text[at : at + size] for at in range(0, len(text), size)]
    words = text.split(" ")
    return [word + " " for word in words[:-1]] + words[-1:] if text else []
