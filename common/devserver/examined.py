"""What operators' commands look after: what the environment names, or the system that runs with this folder."""

from collections.abc import Mapping
from pathlib import Path

from common.devserver.embedded import sockets_folder
from common.devserver.postgres import url_at
from common.devserver.secret import development_secret


def examined_environment(environment: Mapping[str, str], data: Path) -> dict[str, str]:
    """`environment`; where it names no stores, with those of the `throughline dev` that runs with the folder `data`."""
    sockets = sockets_folder(data.resolve())
    named = environment.get("DATABASE_URL") or environment.get("REDIS_URL")
    if named or environment.get("THROUGHLINE_ENV") == "production" or not (sockets / "valkey.sock").exists():
        return dict(environment)
    return {
        **environment,
        "THROUGHLINE_ENV": "development",
        "DATABASE_URL": url_at(sockets),
        "REDIS_URL": f"unix://{sockets / 'valkey.sock'}",
        "JWT_SECRET": environment.get("JWT_SECRET") or development_secret(data),
    }
