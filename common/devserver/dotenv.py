"""`.env`: settings of this folder, for development."""

import re
from collections.abc import Mapping
from pathlib import Path

from common.devserver.errors import DevServerError

_LINE = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)")
_COMMENT = re.compile(r"(?:^|\s+)#.*")


def with_dotenv(environment: Mapping[str, str], path: Path) -> dict[str, str]:
    """`environment` over what the file says; a missing file says nothing. Raises DevServerError."""
    if not path.is_file():
        return dict(environment)
    return {**parse_dotenv(path.read_text("utf-8")), **environment}


def parse_dotenv(text: str) -> dict[str, str]:
    """`NAME=value` lines; quotes keep blanks and `#`; nothing is expanded."""
    values = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise DevServerError(f".env, line {number}: expected NAME=value")
        values[match[1]] = _value(match[2], number)
    return values


def _value(text: str, number: int) -> str:
    quote = text[:1]
    if quote in ("'", '"'):
        inner, closed, rest = text[1:].partition(quote)
        if not closed or _COMMENT.sub("", rest).strip():
            raise DevServerError(f".env, line {number}: the quote is not closed")
        return inner
    return _COMMENT.sub("", text).strip()
