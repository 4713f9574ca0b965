"""JWT -> Principal. Who is asking, in which workspace, with which role, until when."""

import re
import time
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, NamedTuple
from uuid import UUID

import jwt
import msgspec
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from structlog.contextvars import bind_contextvars

from api.errors import invalid
from api.jwks import ALGORITHMS, JwkSet, fetch_from
from api.limits.admission import Admission
from common.config import ConfigError, Settings
from common.errors import ErrorCode, ThroughlineError

MAX_TOKEN_BYTES = 8192

_LEEWAY_S = 10
_MOST_REMEMBERED = 1_000
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", re.ASCII)
_SUBJECT = re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff]{1,255}")


class WorkspaceRole(StrEnum):
    """What somebody may do in a workspace; a viewer only reads."""

    OWNER = "owner"
    ADMIN = "admin"
    MEMBER = "member"
    VIEWER = "viewer"


class Principal(NamedTuple):
    """Somebody in one workspace, until `expires_at`."""

    user: str
    workspace_id: UUID
    role: WorkspaceRole
    expires_at: datetime


class Operator(NamedTuple):
    """Somebody who operates the whole system, until `expires_at`; a member of no workspace by that."""

    user: str
    expires_at: datetime


class Claims(NamedTuple):
    """What a verified token says."""

    user: str
    expires_at: datetime
    workspaces: dict[UUID, WorkspaceRole]
    is_superuser: bool


class _Verified(NamedTuple):
    """A token that was good: what made it so, and until when (Unix seconds)."""

    algorithm: str
    kid: Any
    key: Any
    until: float
    claims: Claims


class _Membership(msgspec.Struct):
    workspace_id: UUID
    role: str


class TokenVerifier:
    """Accepts HS256 by the shared secret, and RS256, ES256 and EdDSA by the issuer's keys; nothing else.

    `keys` stand in for those at JWT_JWKS_URL. Raises ConfigError when neither is configured, or the secret is too
    short for HS256.
    """

    def __init__(self, settings: Settings, keys: JwkSet | None = None) -> None:
        if not settings.jwt_secret and not settings.jwt_jwks_url:
            raise ConfigError("JWT_SECRET or JWT_JWKS_URL must be set; see .env.example")
        if settings.jwt_secret and len(settings.jwt_secret.encode()) < 32:
            raise ConfigError("JWT_SECRET must have at least 32 bytes")
        self._settings = settings
        self._keys = keys
        if keys is None and settings.jwt_jwks_url:
            self._keys = JwkSet(fetch_from(settings.jwt_jwks_url), settings.jwt_jwks_ttl_s)
        self._verified: dict[str, _Verified] = {}

    async def verify(self, token: str) -> Claims:
        """The claims of a token that holds now. Raises `unauthorized`, or `unavailable` without the issuer's keys.

        One that comes again is not computed again, but its key and its end are looked at each time.
        """
        known = self._verified.get(token)
        if known is not None:
            if await self._key_for(known.algorithm, known.kid) is known.key and known.until > time.time():
                return known.claims
            self._verified.pop(token, None)
        if len(token) > MAX_TOKEN_BYTES:
            raise _refused("it is longer than 8 KB")
        # Whatever a token makes the parser raise, the token is at fault: RecursionError, OverflowError, TypeError, …
        try:
            header = jwt.get_unverified_header(token)
        except Exception:
            raise _refused("it is malformed") from None
        algorithm = header.get("alg")
        key = await self._key_for(algorithm, header.get("kid"))
        try:
            payload = self._decode(token, key, str(algorithm))
            claims = self._read(payload)
        except ThroughlineError:
            raise
        except jwt.PyJWTError as error:
            raise _refused(str(error)) from None
        except Exception:
            raise _refused("it is malformed") from None
        if len(self._verified) >= _MOST_REMEMBERED:
            self._verified.clear()
        self._verified[token] = _Verified(str(algorithm), header.get("kid"), key, claims.expires_at.timestamp(), claims)
        return claims

    async def _key_for(self, algorithm: Any, kid: Any) -> Any:
        if algorithm == "HS256" and self._settings.jwt_secret:
            return self._settings.jwt_secret
        if algorithm in ALGORITHMS and self._keys is not None and isinstance(kid, str):
            key = await self._keys.find(kid, algorithm)
            if key is not None:
                return key.key
        raise _refused("it is signed with no key or algorithm that is accepted here")

    def _decode(self, token: str, key: Any, algorithm: str) -> dict[str, Any]:
        issuer = self._settings.jwt_issuer
        # The leeway is for an issuer whose clock is a little ahead; the end is checked without it.
        payload: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=[algorithm],
            audience=self._settings.jwt_audience,
            issuer=issuer or None,
            leeway=_LEEWAY_S,
            options={"require": ["exp", "aud", "sub", *(["iss"] if issuer else [])]},
        )
        return payload

    def _read(self, payload: dict[str, Any]) -> Claims:
        now = time.time()
        end = float(payload["exp"])
        begin = float(payload.get("iat", now))
        if not end > now:
            raise _refused("it has expired")
        if not end - begin <= self._settings.jwt_max_lifetime_s:
            raise _refused("it lives longer than is accepted here")
        if not _SUBJECT.fullmatch(payload["sub"]):
            raise _refused("its subject is malformed")
        memberships = msgspec.convert(payload.get("workspaces") or [], list[_Membership])
        return Claims(
            payload["sub"],
            datetime.fromtimestamp(end, UTC),
            {m.workspace_id: WorkspaceRole(m.role) for m in memberships if m.role in tuple(WorkspaceRole)},
            payload.get("is_superuser") is True,
        )


async def authenticate(connection: "ASGIConnection[Any, Any, Any, Any]", route_handler: BaseRouteHandler) -> None:
    """A guard: afterwards `connection.user` is the Principal, whose request is counted. A viewer passes where the route
    only reads.
    """
    principal = await read_principal(connection)
    await count_request(connection, principal)
    reads = connection.scope.get("method") in ("GET", "HEAD") or route_handler.opt.get("reads", False)
    if principal.role is WorkspaceRole.VIEWER and not reads:
        raise ThroughlineError(ErrorCode.FORBIDDEN, "A viewer of this workspace may not change anything in it.")
    connection.scope["user"] = principal


async def count_request(connection: "ASGIConnection[Any, Any, Any, Any]", principal: Principal) -> None:
    """Raises `rate_limited` for a request that its workspace or user has no more place for."""
    admission: Admission = connection.app.state.resources.admission
    await admission.count_request(principal.workspace_id, principal.user)


async def authenticate_operator(
    connection: "ASGIConnection[Any, Any, Any, Any]", route_handler: BaseRouteHandler
) -> None:
    """A guard: afterwards `connection.user` is the Operator. Only the claim `is_superuser: true` makes one."""
    verifier: TokenVerifier = connection.app.state.verifier
    claims = await verifier.verify(_bearer_token(connection.headers.get("authorization")))
    if not claims.is_superuser:
        raise ThroughlineError(ErrorCode.FORBIDDEN, "The token is no superuser's: it lacks `is_superuser: true`.")
    connection.scope["user"] = Operator(claims.user, claims.expires_at)


async def read_principal(connection: "ASGIConnection[Any, Any, Any, Any]") -> Principal:
    """Who is asking by the request's bearer token, in the workspace that it names."""
    verifier: TokenVerifier = connection.app.state.verifier
    token = _bearer_token(connection.headers.get("authorization"))
    return await principal_of(verifier, token, _named_workspace(connection))


async def principal_of(verifier: TokenVerifier, token: str, workspace_id: UUID | None) -> Principal:
    """Who holds `token`, in the workspace that they have named, or else in their only one."""
    claims = await verifier.verify(token)
    if workspace_id is None:
        workspace_id = _only_workspace(claims)
    role = claims.workspaces.get(workspace_id)
    if role is None:
        raise ThroughlineError(ErrorCode.FORBIDDEN, "The token is for no member of this workspace.")
    bind_contextvars(workspace_id=str(workspace_id))
    return Principal(claims.user, workspace_id, role, claims.expires_at)


def _bearer_token(header: str | None) -> str:
    scheme, _, token = (header or "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise ThroughlineError(ErrorCode.UNAUTHORIZED, "Send a token: Authorization: Bearer <JWT>.")
    return token.strip()


def _named_workspace(connection: "ASGIConnection[Any, Any, Any, Any]") -> UUID | None:
    query = connection.query_params
    named = (connection.headers.get("x-workspace-id"), query.get("workspaceId"), query.get("workspace_id"))
    text = next((name for name in named if name is not None), None)
    if text is None:
        return None
    if not _UUID.fullmatch(text):
        raise invalid("X-Workspace-Id: not a UUID")
    return UUID(text)


def _only_workspace(claims: Claims) -> UUID:
    match list(claims.workspaces):
        case [only]:
            return only
        case []:
            raise ThroughlineError(ErrorCode.FORBIDDEN, "The token is for no member of any workspace.")
        case _:
            raise ThroughlineError(
                ErrorCode.WORKSPACE_REQUIRED, "The token is for several workspaces: name one in X-Workspace-Id."
            )


def _refused(why: str) -> ThroughlineError:
    return ThroughlineError(ErrorCode.UNAUTHORIZED, f"The token is not accepted: {why}.")
