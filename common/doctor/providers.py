"""The model providers: who has a key, and, where that is asked for, whether the key is taken."""

import asyncio
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from common.config import Settings
from common.doctor.findings import Finding, ok, problem, warning

_TIMEOUT_S = 10.0
_ANTHROPIC_VERSION = "2023-06-01"
_WITHOUT_KEY = "echo"


class Endpoint(NamedTuple):
    """A provider as it is configured. `variable` holds its key, None where it needs none; `url` is asked with GET."""

    name: str
    variable: str | None
    key: str
    url: str
    headers: dict[str, str]


class _KeySet(msgspec.Struct):
    keys: list[dict[str, object]]


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A key goes to the configured address and to no other."""

    def redirect_request(self, *_: Any) -> None:
        return None


def endpoints(settings: Settings, environment: Mapping[str, str]) -> list[Endpoint]:
    """All of them, with what lists their models and costs nothing (at OpenRouter that needs no key: its key then)."""
    key = settings.anthropic_api_key
    headers = {"x-api-key": key, "anthropic-version": _ANTHROPIC_VERSION}
    url = f"{settings.anthropic_base_url.rstrip('/')}/v1/models"
    found = [Endpoint("anthropic", "ANTHROPIC_API_KEY", key, url, headers)]
    for name, path in (("openai", "models"), ("openrouter", "key"), ("zai", "models")):
        base, key = getattr(settings, f"{name}_base_url"), getattr(settings, f"{name}_api_key")
        found.append(Endpoint(name, f"{name.upper()}_API_KEY", key, _below(base, path), _bearer(key)))
    for one in settings.compatible_providers:
        key = environment.get(one.api_key_env, "").strip() if one.api_key_env else ""
        found.append(Endpoint(one.name, one.api_key_env, key, _below(one.base_url, "models"), _bearer(key)))
    return found


def check_keys(settings: Settings, environment: Mapping[str, str]) -> list[Finding]:
    """Who has a key. Workers need them, the API does not: a container of the API may well have none."""
    check = "providers"
    known = endpoints(settings, environment)
    usable = [one.name for one in known if one.key or one.variable is None]
    found = []
    for one in settings.compatible_providers:
        if one.name not in usable:
            says = f"{one.name} is to take its key from {one.api_key_env}, which is not set"
            found.append(warning(check, says, f"Set {one.api_key_env} for the workers."))
    default = settings.default_provider
    if default not in (*usable, _WITHOUT_KEY):
        variable = next((one.variable for one in known if one.name == default), None)
        says = f"DEFAULT_PROVIDER is {default}, which {'has no key here' if variable else 'nobody knows'}"
        advice = f"Set {variable} for the workers, or another DEFAULT_PROVIDER." if variable else "Name another."
        found.append(warning(check, f"{says}: messages that name no provider are refused", advice))
    return found or [ok(check, f"{', '.join(usable)}; {default} where a message names none")]


async def ask_providers(settings: Settings, environment: Mapping[str, str]) -> list[Finding]:
    """One request to each that has a key, and to the issuer of tokens."""
    asked = [_ask(one) for one in endpoints(settings, environment) if one.key or one.variable is None]
    if settings.jwt_jwks_url:
        asked.append(_ask_issuer(settings.jwt_jwks_url))
    return list(await asyncio.gather(*asked))


async def _ask(one: Endpoint) -> Finding:
    check = f"provider {one.name}"
    try:
        await asyncio.to_thread(_get, one.url, one.headers)
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            advice = f"Set {one.variable or 'a key'} to one that holds: workers fail every run of this provider."
            return problem(check, f"it refuses the key ({error.code})", advice)
        says = f"it answers {error.code} to a request for its models"
        return warning(check, says, "Look whether its base URL is right; some servers have no such list.")
    except (OSError, ValueError) as error:
        return problem(check, f"no answer: {_reason(error)}", "Look at its base URL, proxies and firewalls.")
    return ok(check, "it answers" + (", and takes the key" if one.key else ""))


async def _ask_issuer(url: str) -> Finding:
    check = "token issuer"
    try:
        keys = msgspec.json.decode(await asyncio.to_thread(_get, url, {}), type=_KeySet).keys
    except (OSError, ValueError) as error:
        says = f"its keys cannot be read: {_reason(error)}"
        return problem(check, says, "Mend JWT_JWKS_URL, or let this machine reach it: no token is taken without.")
    if not keys:
        return problem(check, "it has no keys", "Look whether JWT_JWKS_URL is right: no token is taken without.")
    return ok(check, f"{len(keys)} keys")


def _get(url: str, headers: dict[str, str]) -> bytes:
    if not url.startswith(("http://", "https://")):
        raise ValueError
    request = urllib.request.Request(url, headers={**headers, "User-Agent": "throughline-doctor"})  # noqa: S310
    with urllib.request.build_opener(_NoRedirects).open(request, timeout=_TIMEOUT_S) as answer:
        content: bytes = answer.read()
    return content


def _reason(error: Exception) -> str:
    match error:
        case msgspec.DecodeError():
            return "it is no JSON Web Key Set"
        case ValueError():
            # Its words may hold the key.
            return "its address or its key is not one that can be sent"
    return str(getattr(error, "reason", error)) or type(error).__name__


def _below(base: str, path: str) -> str:
    return f"{base.rstrip('/')}/{path}"


def _bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}
