"""An issuer's public keys, by key id. Whoever sends tokens decides nothing here: not what is fetched, nor how often."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import jwt
import structlog

from common.errors import ErrorCode, ThroughlineError

ALGORITHMS = ("RS256", "ES256", "EdDSA")

_COOLDOWN_S = 30.0
_TIMEOUT_S = 3.0
_log = structlog.get_logger(__name__)

Fetch = Callable[[], Awaitable[dict[str, Any]]]


class JwkSet:
    """The keys as last fetched. They are fetched again when older than `ttl_s`, or for a key id that is unknown.

    Two fetches are at least 30 s apart, unless the first of them succeeded and its keys have since outlived
    `ttl_s`. While the issuer is unreachable the last good keys hold.
    """

    def __init__(self, fetch: Fetch, ttl_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._fetch = fetch
        self._ttl_s = ttl_s
        self._clock = clock
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched_at: float | None = None
        self._next_fetch = float("-inf")
        self._fetching = asyncio.Lock()

    async def find(self, kid: str, algorithm: str) -> jwt.PyJWK | None:
        """The key of that id, if it is one for `algorithm`. Raises `unavailable` while there are no keys at all."""
        if self._is_stale() or kid not in self._keys:
            await self._refresh(kid)
        if self._fetched_at is None:
            raise ThroughlineError(ErrorCode.UNAVAILABLE, "The token issuer's keys cannot be fetched. Try again.")
        key = self._keys.get(kid)
        return key if key is not None and key.algorithm_name == algorithm else None

    def _is_stale(self) -> bool:
        return self._fetched_at is None or self._clock() - self._fetched_at >= self._ttl_s

    async def _refresh(self, kid: str) -> None:
        async with self._fetching:
            wanted = self._is_stale() or kid not in self._keys
            if not wanted or self._clock() < self._next_fetch:
                return
            self._next_fetch = self._clock() + _COOLDOWN_S
            try:
                self._keys = _read_keys(await self._fetch())
            except (jwt.PyJWTError, ValueError, OSError) as error:
                _log.warning("jwks_not_fetched", error=str(error))
                return
            self._fetched_at = self._clock()
            self._next_fetch = self._fetched_at + min(_COOLDOWN_S, self._ttl_s)


def fetch_from(url: str) -> Fetch:
    """Fetches the set at `url` (http or https; no redirects), within 3 s."""
    client = jwt.PyJWKClient(url, cache_jwk_set=False, timeout=_TIMEOUT_S)

    async def fetch() -> dict[str, Any]:
        data: dict[str, Any] = await asyncio.to_thread(client.fetch_data)
        return data

    return fetch


def _read_keys(data: dict[str, Any]) -> dict[str, jwt.PyJWK]:
    keys = jwt.PyJWKSet.from_dict(data).keys
    return {
        key.key_id: key
        for key in keys
        if key.key_id and key.public_key_use in ("sig", None) and key.algorithm_name in ALGORITHMS
    }
