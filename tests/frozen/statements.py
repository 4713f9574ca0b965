"""Notes the SQL of every statement that a process prepares through the store, while tests run: a plugin of pytest.

Each test process adds to a file of its own in the folder that STATEMENTS names.
"""

import json
import os
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import asyncpg

from common import store

_FOLDER = Path(os.environ["STATEMENTS"])
_STORE = str(Path(store.__path__[0]))
_seen: set[str] = set()
_get_statement = asyncpg.Connection._get_statement


async def _note(connection: Any, query: str, *args: Any, **options: Any) -> Any:
    if query not in _seen and _is_called_by_the_store(sys._getframe()):
        _seen.add(query)
        with (_FOLDER / f"{os.getpid()}.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(query) + "\n")
    return await _get_statement(connection, query, *args, **options)


def _is_called_by_the_store(frame: FrameType | None) -> bool:
    while frame is not None and not frame.f_code.co_filename.startswith(_STORE):
        frame = frame.f_back
    # What tests ask through the store's connections passes database.py alone, and migrations are the owner's.
    return frame is not None and (
        Path(frame.f_code.co_filename).name not in ("database.py", "migrate.py")
        or frame.f_code.co_name == "_prepare"
        or _is_called_by_the_store(frame.f_back)
    )


asyncpg.Connection._get_statement = _note
