"""Bodies: JSON in UTF-8 and nothing else, decoded straight into the struct that the handler asks for.

Litestar alone answers 500 to bad UTF-8 and to very deep JSON, and reads "1" where a number is due. Its size limit
(`request_max_body_size`) is kept: it counts what arrives, chunked or not.
"""

import asyncio
import re
from functools import lru_cache
from typing import Any, ClassVar

import msgspec
from litestar import Request
from litestar.datastructures import State
from litestar.exceptions import InternalServerException

from api.auth import Principal
from api.errors import invalid
from common.errors import ErrorCode, ThroughlineError

MAX_DEPTH = 64
BODY_S = 30.0
"""How long a client may take to send a body."""

# The closing quote is optional so that no text makes the search try again from inside a string.
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
_BRACKET = re.compile(rb"[\[\]{}]")


class JsonRequest(Request[Principal, Any, State]):
    """A request whose body has been decoded by its handler's own types before the handler sees it."""

    checks_depth: ClassVar[bool] = True

    async def body(self) -> bytes:
        """The bytes of the body. Raises `request_timeout` when they take longer than BODY_S.

        A client that leaves in its middle is at fault itself, though nobody reads that.
        """
        try:
            async with asyncio.timeout(BODY_S):
                return await super().body()
        except TimeoutError:
            raise ThroughlineError(ErrorCode.REQUEST_TIMEOUT, f"The body was not here after {BODY_S:g} s.") from None
        except InternalServerException:
            raise invalid("body: it broke off") from None

    async def json(self) -> Any:
        """The body as the `data` of this route's handler. Raises `unsupported_media_type` or `invalid_request`."""
        body = await self.body()
        _check_media_type(self.headers.get("content-type", ""))
        if self.checks_depth:
            _check_depth(body)
        data = _decode(body, self._body_type())
        if rb"\u0000" in body:
            _check_no_nul(msgspec.to_builtins(data))
        return data

    def _body_type(self) -> Any:
        declared = self.route_handler.parsed_fn_signature.parameters["data"]
        # `X | None` says that there may be no body, not that the body may be null.
        return declared.inner_types[0].annotation if declared.is_optional else declared.annotation


class ShallowJsonRequest(JsonRequest):
    """For a body that may be large and whose shape keeps nothing nested: it may nest as it likes."""

    checks_depth = False


def _check_media_type(content_type: str) -> None:
    media_type, _, parameters = content_type.lower().partition(";")
    charset = parameters.partition("charset=")[2].strip(' "')
    if media_type.strip() != "application/json" or charset not in ("", "utf-8", "utf8"):
        raise ThroughlineError(ErrorCode.UNSUPPORTED_MEDIA_TYPE, "Send the body as application/json in UTF-8.")


def _check_depth(body: bytes) -> None:
    if body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        return
    depth = 0
    for bracket in _BRACKET.finditer(_STRING.sub(b"", body)):
        depth += 1 if bracket[0] in b"[{" else -1
        if depth > MAX_DEPTH:
            raise invalid(f"body: nested deeper than {MAX_DEPTH} levels")


@lru_cache
def _decoder(annotation: Any) -> "msgspec.json.Decoder[Any]":
    return msgspec.json.Decoder(annotation)


def _decode(body: bytes, annotation: Any) -> Any:
    try:
        return _decoder(annotation).decode(body)
    except UnicodeDecodeError:
        raise invalid("body: not UTF-8") from None
    except msgspec.ValidationError as error:
        raise invalid(_describe(str(error))) from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise invalid(f"body: not JSON: {error}") from None


def _describe(error: str) -> str:
    """``Expected `str` - at `$.title` `` becomes ``title: Expected `str` ``."""
    message, _, path = error.partition(" - at `$")
    return f"{path.rstrip('`').lstrip('.') or 'body'}: {message}"


def _check_no_nul(value: Any) -> None:
    if isinstance(value, str) and "\x00" in value:
        raise invalid("body: text may not contain U+0000")
    if isinstance(value, dict):
        for item in value.values():
            _check_no_nul(item)
    elif isinstance(value, list):
        for item in value:
            _check_no_nul(item)
