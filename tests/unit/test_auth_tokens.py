"""What a token must be to be accepted."""

import base64
import json
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import jwt
import pytest

from api import auth
from api.auth import MAX_TOKEN_BYTES, TokenVerifier, WorkspaceRole
from common.config import ConfigError, load_settings
from common.errors import ErrorCode, ThroughlineError
from common.ids import new_id

SECRET = "a secret of the tests, long enough for HS256"
WORKSPACE = new_id()


def make_verifier(**environment: str) -> TokenVerifier:
    return TokenVerifier(load_settings({"JWT_SECRET": SECRET, **environment}))


def make_payload(**changes: Any) -> dict[str, Any]:
    payload = {
        "sub": "alice",
        "aud": "authenticated",
        "exp": time.time() + 60,
        "workspaces": [{"workspace_id": str(WORKSPACE), "workspace_name": "w", "role": "admin"}],
        **changes,
    }
    return {name: value for name, value in payload.items() if value is not None}


def sign(payload: dict[str, Any], key: str = SECRET, headers: dict[str, Any] | None = None) -> str:
    return jwt.encode(payload, key, "HS256", headers=headers)


def glue(header: bytes, payload: bytes, signature: bytes = b"x") -> str:
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (header, payload, signature))


async def refusal(verifier: TokenVerifier, token: str) -> ThroughlineError:
    with pytest.raises(ThroughlineError) as caught:
        await verifier.verify(token)
    return caught.value


async def test_token_with_all_claims_is_accepted() -> None:
    """A verified token gives its user, its end, and the role in each of its workspaces."""
    payload = make_payload()

    claims = await make_verifier().verify(sign(payload))

    assert claims.user == "alice"
    assert claims.expires_at.timestamp() == pytest.approx(payload["exp"], abs=0.001)
    assert claims.workspaces == {WORKSPACE: WorkspaceRole.ADMIN}


async def test_token_of_the_configured_issuer_is_accepted() -> None:
    """With an issuer configured, its tokens pass."""
    claims = await make_verifier(JWT_ISSUER="https://issuer").verify(sign(make_payload(iss="https://issuer")))

    assert claims.user == "alice"


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": None},
        {"aud": None},
        {"sub": None},
        {"aud": "somebody else"},
        {"sub": ""},
        {"sub": 7},
        {"sub": "a\x00b"},
        {"sub": "a\ud800"},
        {"sub": "a" * 256},
        {"exp": time.time() - 1},
        {"exp": "soon"},
        {"exp": -1},
        {"exp": 1e300},
        {"exp": float("inf")},
        {"exp": float("nan")},
        {"exp": time.time() + 31 * 24 * 3600},
        {"iat": time.time() - 31 * 24 * 3600},
        {"iat": time.time() + 3600},
        {"iat": "x"},
        {"nbf": time.time() + 3600},
        {"workspaces": "mine"},
        {"workspaces": [1]},
        {"workspaces": [{"workspace_id": "x", "role": "admin"}]},
        {"workspaces": {"a": "b"}},
    ],
    ids=lambda changes: "-".join(changes),  # no times: every process must give a test the same name
)
async def test_token_with_a_bad_claim_is_refused(changes: dict[str, Any]) -> None:
    """A claim that is missing, malformed, over or too far away makes the token worthless."""
    assert (await refusal(make_verifier(), sign(make_payload(**changes)))).code is ErrorCode.UNAUTHORIZED


@pytest.mark.parametrize("issuer", [None, "https://other"])
async def test_token_of_another_issuer_is_refused(issuer: str | None) -> None:
    """With an issuer configured, a token without one or of another one is refused."""
    token = sign(make_payload(iss=issuer))

    assert (await refusal(make_verifier(JWT_ISSUER="https://issuer"), token)).code is ErrorCode.UNAUTHORIZED


def unsigned() -> str:
    return jwt.encode(make_payload(), "", "none")


def deep_header() -> str:
    return glue(b"[" * 3000, b"{}")


def broken(header: object) -> Callable[[], str]:
    return lambda: glue(json.dumps(header).encode(), json.dumps(make_payload()).encode())


@pytest.mark.parametrize(
    "make",
    [
        unsigned,
        deep_header,
        broken({"alg": "none"}),
        broken({"alg": "HS256"}),
        broken({"alg": ["HS256"]}),
        broken({"alg": {"a": 1}}),
        broken({"alg": "HS512"}),
        broken({"alg": "RS256", "kid": "a"}),
        broken({"alg": "HS256", "kid": 7}),
        broken({"alg": "HS256", "crit": ["x"], "x": 1}),
        broken({"alg": "HS256", "b64": False}),
        broken([]),
        broken(None),
        lambda: "",
        lambda: "a.b.c",
        lambda: "....",
        lambda: "ü.ü.ü",
        lambda: glue(b"\xff\xfe", b"\x00"),
        lambda: sign(make_payload(), "another secret, as long as the first one"),
        lambda: sign(make_payload())[:-2],
    ],
)
async def test_token_that_is_forged_or_malformed_is_refused(make: Callable[[], str]) -> None:
    """No signature, a wrong one, a strange header or no token at all: refused, and never an error of ours."""
    assert (await refusal(make_verifier(), make())).code is ErrorCode.UNAUTHORIZED


async def test_token_over_8_kb_is_refused_unread() -> None:
    """Even a good token is refused when it is too long."""
    token = sign(make_payload(padding="x" * MAX_TOKEN_BYTES))

    assert "8 KB" in (await refusal(make_verifier(), token)).message


async def test_unknown_role_is_no_membership() -> None:
    """A role that this server does not know gives no access, and spoils no other one."""
    other = UUID(int=7)
    roles = [{"workspace_id": str(other), "role": "emperor"}, {"workspace_id": str(WORKSPACE), "role": "viewer"}]

    claims = await make_verifier().verify(sign(make_payload(workspaces=roles)))

    assert claims.workspaces == {WORKSPACE: WorkspaceRole.VIEWER}


async def test_clock_of_the_issuer_may_be_a_little_ahead() -> None:
    """A token that was made some seconds in our future is accepted."""
    now = time.time()

    assert (await make_verifier().verify(sign(make_payload(iat=now + 5, nbf=now + 5)))).user == "alice"


async def test_token_that_comes_again_is_remembered_until_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its signature is computed once; its end is looked at each time, and a token that differs is another one."""
    verifier, token = make_verifier(), sign(make_payload())
    claims = await verifier.verify(token)
    computed = []

    def decode(token: str, *_: Any, **__: Any) -> dict[str, Any]:
        computed.append(token)
        return make_payload(exp=1.0)

    monkeypatch.setattr(jwt, "decode", decode)
    assert await verifier.verify(token) == claims
    assert not computed

    assert (await refusal(verifier, token + "A")).message.endswith("it has expired.")
    assert len(computed) == 1
    monkeypatch.setattr(auth, "time", SimpleNamespace(time=lambda: time.time() + 61))
    assert (await refusal(verifier, token)).message.endswith("it has expired.")
    assert (await refusal(verifier, token)).code is ErrorCode.UNAUTHORIZED


async def test_only_so_many_tokens_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has many tokens takes no more memory than others; all of them are accepted."""
    monkeypatch.setattr(auth, "_MOST_REMEMBERED", 3)
    verifier = make_verifier()
    for _ in range(2):
        for number in range(10):
            assert (await verifier.verify(sign(make_payload(sub=f"user {number}")))).user == f"user {number}"
    assert len(verifier._verified) <= 3


@pytest.mark.parametrize("environment", [{}, {"JWT_SECRET": "short"}])
def test_settings_without_a_good_key_are_refused(environment: dict[str, str]) -> None:
    """A server that could verify nothing, or whose secret can be guessed, does not start."""
    with pytest.raises(ConfigError, match="JWT_SECRET"):
        TokenVerifier(load_settings(environment))
