"""Logs: JSON lines in production, readable ones in development, the same path for every library.

What people and models write never belongs in a log, nor does a key. Log names, ids, counts and kinds of errors.
"""

import logging
import os
import re
import sys
from typing import Any, TextIO
from urllib.parse import unquote

import msgspec
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from common.config import Settings, url_passwords

_TALKATIVE = (
    "aiohttp",
    "anthropic",
    "arq",
    "httpcore",
    "httpcore2",
    "httpx",
    "httpx2",
    "openai",
    "uvicorn.access",
    "uvicorn.error",
    "websockets",
)
"""Libraries whose lower levels log requests: bodies are content, and a URL may carry a ticket."""

# Postgres quotes the rejected row here.
_DETAIL = re.compile(r"\nDETAIL:.*?(?=\nHINT:|\n\nDuring handling|\n\nThe above exception|\Z)", re.DOTALL)
# asyncpg quotes a value that it cannot send, and it may be anything that somebody wrote.
_ARGUMENT = re.compile(r"(invalid input for query argument \$\d+: ).*")
_SHORTEST_SECRET = 8


def configure_logging(settings: Settings, stream: TextIO | None = None) -> None:
    """Sends structlog and the standard library's logging to `stream` (default: stdout) as one format."""
    before: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _leave_out_rows,
    ]
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    handler = logging.StreamHandler(stream or sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.PositionalArgumentsFormatter(), *before],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _renderer(settings, handler.stream),
                _Redact(_secrets(settings)),
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=level, force=True)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *before,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(level),
    )


def _renderer(settings: Settings, stream: TextIO) -> Processor:
    if settings.throughline_env == "production":
        return structlog.processors.JSONRenderer(serializer=_encode)
    # The default formatter of exceptions shows local variables, and those are content.
    return structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback)


def _encode(event: EventDict, **_: Any) -> str:
    return msgspec.json.encode(event, enc_hook=repr).decode()


def _leave_out_rows(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    for name in ("exception", "error"):
        if isinstance(text := event.get(name), str):
            event[name] = _ARGUMENT.sub(r"\1***", _DETAIL.sub("", text))
    return event


def _secrets(settings: Settings) -> list[str]:
    """Every key and password that this process knows of."""
    names = settings.__struct_fields__
    found = [getattr(settings, name) for name in names if name.endswith(("_key", "_secret", "_token"))]
    found += [header.partition("=")[2] for header in settings.otel_exporter_otlp_headers.split(",")]
    found += [os.environ.get(provider.api_key_env or "", "") for provider in settings.compatible_providers]
    for name in names:
        if name.endswith("_url"):
            found += [text for word in url_passwords(getattr(settings, name)) for text in (word, unquote(word))]
    return [secret for secret in found if len(secret) >= _SHORTEST_SECRET]


class _Redact:
    """The last step: whatever led a secret into a line, it does not leave the process."""

    def __init__(self, secrets: list[str]) -> None:
        self._pattern = re.compile("|".join(map(re.escape, secrets))) if secrets else None

    def __call__(self, _: WrappedLogger, __: str, line: Any) -> str:
        text = str(line)
        return self._pattern.sub("***", text) if self._pattern is not None else text
