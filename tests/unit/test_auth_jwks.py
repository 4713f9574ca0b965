"""The issuer's keys: what is fetched, how often, and what holds while it cannot be."""

import asyncio
import json
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from api.auth import TokenVerifier
from api.jwks import JwkSet
from common.config import load_settings
from common.errors import ErrorCode, ThroughlineError

TTL_S = 600.0
RSA_KEY = rsa.generate_private_key(65537, 2048)
KEYS: dict[str, tuple[str, Any]] = {
    "r": ("RS256", RSA_KEY),
    "e": ("ES256", ec.generate_private_key(ec.SECP256R1())),
    "d": ("EdDSA", ed25519.Ed25519PrivateKey.generate()),
}


class Issuer:
    """Counts what is asked of it; `now` is the time."""

    def __init__(self, *kids: str) -> None:
        self.kids = list(kids)
        self.fetches = 0
        self.down = False
        self.now = 1000.0
        self.keys = JwkSet(self._fetch, TTL_S, lambda: self.now)

    async def _fetch(self) -> dict[str, Any]:
        self.fetches += 1
        await asyncio.sleep(0)
        if self.down:
            raise OSError("unreachable")
        return {"keys": [_as_jwk(kid) for kid in self.kids]}


def _as_jwk(kid: str) -> dict[str, Any]:
    name, key = KEYS[kid]
    jwk = jwt.get_algorithm_by_name(name).to_jwk(key.public_key(), as_dict=False)
    return {**json.loads(jwk), "kid": kid, "use": "sig"}


def make_verifier(issuer: Issuer) -> TokenVerifier:
    return TokenVerifier(load_settings({"JWT_JWKS_URL": "http://127.0.0.1:9/jwks"}), issuer.keys)


def sign(kid: str, **headers: Any) -> str:
    name, key = KEYS[kid]
    payload = {"sub": "alice", "aud": "authenticated", "exp": time.time() + 60}
    return jwt.encode(payload, key, name, headers={"kid": kid, **headers})


@pytest.mark.parametrize("kid", list(KEYS))
async def test_token_signed_with_a_published_key_is_accepted(kid: str) -> None:
    """RS256, ES256 and EdDSA are verified with the key that the token names."""
    assert (await make_verifier(Issuer("r", "e", "d")).verify(sign(kid))).user == "alice"


async def test_flood_of_unknown_keys_fetches_once() -> None:
    """A thousand tokens with a thousand unknown key ids make one fetch within 30 s, and another one after it."""
    issuer = Issuer("r")
    await issuer.keys.find("r", "RS256")
    issuer.now += 30

    await asyncio.gather(*(issuer.keys.find(f"unknown-{i}", "RS256") for i in range(1000)))
    assert issuer.fetches == 2

    issuer.now += 29
    await issuer.keys.find("unknown", "RS256")
    assert issuer.fetches == 2


async def test_new_key_is_found_when_a_token_names_it() -> None:
    """A key that was added is fetched for the first token that names it."""
    issuer = Issuer("r")
    await issuer.keys.find("r", "RS256")
    issuer.kids.append("e")
    issuer.now += 30

    assert await issuer.keys.find("e", "ES256") is not None


async def test_removed_key_dies_within_its_ttl() -> None:
    """A key that is no longer published is refused once what was fetched is older than its time to live."""
    issuer = Issuer("r", "e")
    assert await issuer.keys.find("r", "RS256") is not None
    issuer.kids.remove("r")
    issuer.now += TTL_S

    assert await issuer.keys.find("r", "RS256") is None


async def test_remembered_token_dies_with_its_key() -> None:
    """A token that was accepted before is refused once its issuer has taken the key back, or has another one of that
    name.
    """
    issuer = Issuer("e", "r")
    verifier, token = make_verifier(issuer), sign("e")
    for _ in range(2):
        assert (await verifier.verify(token)).user == "alice"
    mine = KEYS["e"]
    for kids, key in ((["r"], mine), (["e"], ("ES256", ec.generate_private_key(ec.SECP256R1())))):
        issuer.kids, KEYS["e"] = kids, key
        issuer.now += TTL_S
        try:
            with pytest.raises(ThroughlineError) as caught:
                await verifier.verify(token)
        finally:
            KEYS["e"] = mine
        assert caught.value.code is ErrorCode.UNAUTHORIZED
        issuer.kids = ["e"]
        issuer.now += TTL_S
        assert (await verifier.verify(token)).user == "alice"


async def test_outage_keeps_the_last_good_keys() -> None:
    """While the issuer is down its keys hold, and it is asked once per 30 s."""
    issuer = Issuer("r")
    await issuer.keys.find("r", "RS256")
    issuer.down = True
    issuer.now += TTL_S

    found = [await issuer.keys.find("r", "RS256") for _ in range(10)]

    assert all(found)
    assert issuer.fetches == 2


async def test_outage_from_the_start_is_no_refusal() -> None:
    """Without any keys nobody can tell whether a token is good: unavailable, not unauthorized."""
    issuer = Issuer("r")
    issuer.down = True

    with pytest.raises(ThroughlineError) as caught:
        await make_verifier(issuer).verify(sign("r"))

    assert caught.value.code is ErrorCode.UNAVAILABLE


async def test_key_is_bound_to_its_algorithm() -> None:
    """A key of one kind verifies no token of another one."""
    issuer = Issuer("r", "e")

    assert await issuer.keys.find("r", "ES256") is None


async def test_public_key_is_no_shared_secret() -> None:
    """HS256 with the public key as its secret is refused, with or without a shared secret configured."""
    public = RSA_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    header = {"alg": "HS256", "kid": "r", "typ": "JWT"}
    payload = {"sub": "alice", "aud": "authenticated", "exp": time.time() + 60}
    signing_input = ".".join(
        jwt.utils.base64url_encode(json.dumps(part).encode()).decode() for part in (header, payload)
    ).encode()
    signature = jwt.get_algorithm_by_name("HS256").sign(signing_input, public)
    token = f"{signing_input.decode()}.{jwt.utils.base64url_encode(signature).decode()}"

    for verifier in (make_verifier(Issuer("r")), TokenVerifier(load_settings({"JWT_SECRET": "x" * 32}))):
        with pytest.raises(ThroughlineError) as caught:
            await verifier.verify(token)
        assert caught.value.code is ErrorCode.UNAUTHORIZED


async def test_addresses_in_a_token_are_never_fetched() -> None:
    """`jku`, `x5u` and an embedded key are ignored: the key comes from the configured issuer or not at all."""
    issuer = Issuer("e")
    token = sign("r", jku="http://127.0.0.1:9/evil", x5u="http://127.0.0.1:9/evil", jwk=_as_jwk("r"))

    with pytest.raises(ThroughlineError) as caught:
        await make_verifier(issuer).verify(token)

    assert caught.value.code is ErrorCode.UNAUTHORIZED
    assert issuer.fetches == 1
