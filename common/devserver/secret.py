"""The secret that signs development tokens: made once, kept in the data folder."""

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from common.devserver.errors import DevServerError


def signing_secret(environment: Mapping[str, str], data: Path) -> str:
    """JWT_SECRET where it is set, else the data folder's own secret. Production never gets the latter."""
    if secret := environment.get("JWT_SECRET", "").strip():
        return secret
    if environment.get("THROUGHLINE_ENV") == "production":
        raise DevServerError("JWT_SECRET must be set: in production no secret is made up")
    return development_secret(data)


def development_secret(data: Path) -> str:
    """The secret in `data/secret` (mode 0600), made when there is none, once among several processes."""
    path = data / "secret"
    data.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        draft = path.with_name(f"secret.{os.getpid()}")
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(fd, "w") as file:
            file.write(secrets.token_urlsafe(48))
        try:
            # Never replaces the secret of another process that was faster.
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return path.read_text().strip()
