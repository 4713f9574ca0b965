"""The Procfile: the one list of commands that make up the system."""

import re
import shlex
from pathlib import Path

from common.devserver.errors import DevServerError

_LINE = re.compile(r"([A-Za-z0-9_-]+):\s*(.+)")
_CHECKOUT = Path(__file__).resolve().parents[2]


def find_procfile() -> Path:
    """The checkout's Procfile; for an installed package, the one in the working directory."""
    for folder in (_CHECKOUT, Path.cwd()):
        if (folder / "Procfile").is_file():
            return folder / "Procfile"
    raise DevServerError("no Procfile here; run this in a checkout of the project, or name one with --procfile")


def read_procfile(path: Path) -> dict[str, list[str]]:
    """Process names and their commands, in the file's order. Raises DevServerError."""
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise DevServerError(f"cannot read {path}: {error.strerror}") from None
    return parse_procfile(text)


def parse_procfile(text: str) -> dict[str, list[str]]:
    """As `read_procfile`. A command is words, not a shell's line: no `&&`, no variables."""
    commands = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise DevServerError(f"Procfile, line {number}: expected `name: command`")
        try:
            commands[match[1]] = shlex.split(match[2])
        except ValueError as error:
            raise DevServerError(f"Procfile, line {number}: {error}") from None
    return commands
