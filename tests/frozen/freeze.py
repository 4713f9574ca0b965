"""`python -m tests.frozen.freeze FOLDER`: today's version as it is, for the releases after it. Takes some minutes."""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from common.eventlog.script import APPEND
from common.store.migrate import load_migrations
from tests.frozen.samples import samples
from tests.frozen.shapes import shapes


def freeze(folder: Path) -> None:
    """Writes everything that tests of later versions read."""
    folder.mkdir(exist_ok=True)
    written = asyncio.run(samples())
    _write(folder / "shapes.json", shapes())
    _write(folder / "samples.json", {name: data.decode("latin-1") for name, data in written.items()})
    _write(folder / "migrations.json", {one.name: one.checksum for one in load_migrations()})
    (folder / "append.lua").write_text(APPEND, "utf-8")
    _write(folder / "statements.json", _statements())


def _statements() -> list[str]:
    """The SQL that the integration tests make the store prepare."""
    with tempfile.TemporaryDirectory() as noted:
        subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "tests.frozen.statements", "tests/integration"],
            env={**os.environ, "STATEMENTS": noted},
            check=True,
        )
        lines = {line for file in Path(noted).glob("*.jsonl") for line in file.read_text("utf-8").splitlines()}
        return sorted(json.loads(line) for line in lines)


def _write(file: Path, content: Any) -> None:
    file.write_text(json.dumps(content, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    freeze(Path(sys.argv[1]))
