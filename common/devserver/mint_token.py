"""Development tokens, in the shape that Supabase gives them."""

import time
from typing import Any
from uuid import UUID

import jwt

from common.config import Settings
from common.devserver.errors import DevServerError

ROLES = ("owner", "admin", "member", "viewer")
DEVELOPMENT_WORKSPACE = UUID("0198f000-0000-7000-8000-000000000001")
"""The workspace of tokens that name none."""

DEVELOPER = "developer"
"""The user of tokens that name none."""

_LIFETIME_S = 7 * 24 * 3600
_ORGANIZATION = UUID("0198f000-0000-7000-8000-000000000002")


def mint_development_token(settings: Settings) -> str:
    """A week for the owner of the development workspace, who operates the system as well."""
    return mint_token(
        settings.jwt_secret,
        workspace=DEVELOPMENT_WORKSPACE,
        user=DEVELOPER,
        role="owner",
        lifetime_s=min(_LIFETIME_S, settings.jwt_max_lifetime_s),
        audience=settings.jwt_audience,
        issuer=settings.jwt_issuer,
        superuser=True,
    )


def mint_token(
    secret: str,
    *,
    workspace: UUID,
    user: str,
    role: str,
    lifetime_s: float,
    audience: str,
    issuer: str = "",
    superuser: bool = False,
) -> str:
    """A token for a user in one workspace, signed with HS256. Raises DevServerError for a short secret."""
    if len(secret.encode()) < 32:
        raise DevServerError("JWT_SECRET is too short: HS256 needs at least 32 bytes")
    now = int(time.time())
    claims: dict[str, Any] = {
        "sub": user,
        "iat": now,
        "exp": now + int(lifetime_s),
        "aud": audience,
        "role": "authenticated",
        "workspaces": [
            {
                "workspace_id": str(workspace),
                "workspace_name": "Development",
                "organization_id": str(_ORGANIZATION),
                "role": role,
            }
        ],
    }
    if superuser:
        claims["is_superuser"] = True
    if issuer:
        claims["iss"] = issuer
    return jwt.encode(claims, secret, algorithm="HS256")
