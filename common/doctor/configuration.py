"""The settings: whether they can be read, and whether they go together."""

import importlib.util
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from ipaddress import ip_address
from urllib.parse import urlsplit

from common.config import Settings
from common.doctor.findings import Finding, ok, problem, warning

_SECRET_BYTES = 32
_ALIKE = 0.85
_STATEMENT_S = 5.0


def check_settings(settings: Settings, environment: Mapping[str, str]) -> list[Finding]:
    """What contradicts each other in settings that could be read, and variables that nobody reads."""
    found = [*_missing(settings), *_misspelt(environment), *_contradictions(settings), *_tools(settings)]
    names = Settings.__struct_fields__
    given = sum(bool(environment.get(name.upper(), "").strip()) for name in names)
    return found or [ok("settings", f"{given} of {len(names)} are set, the others have their defaults")]


def check_tokens(settings: Settings) -> list[Finding]:
    """Whether tokens can be verified, as far as that can be said without asking their issuer."""
    check = "tokens"
    if not settings.jwt_secret and not settings.jwt_jwks_url:
        return [problem(check, "no token can be verified", "Set JWT_SECRET or JWT_JWKS_URL.")]
    found = []
    if settings.jwt_secret:
        size = len(settings.jwt_secret.encode())
        if size < _SECRET_BYTES:
            advice = "Set one of at least 32 bytes, such as `openssl rand -base64 48` prints."
            found.append(problem(check, f"JWT_SECRET has {size} bytes", advice))
        elif len(set(settings.jwt_secret)) < 10:
            advice = "Set a random one, such as `openssl rand -base64 48` prints."
            found.append(warning(check, "JWT_SECRET repeats a few letters", advice))
    if settings.jwt_jwks_url and not _is_https(settings.jwt_jwks_url):
        advice = "Use https: whoever can change these keys can sign tokens."
        found.append(warning(check, "JWT_JWKS_URL is not https", advice))
    if settings.jwt_jwks_url and not settings.jwt_issuer:
        advice = "Set JWT_ISSUER, if the issuer's keys sign for others as well."
        found.append(warning(check, "JWT_JWKS_URL without JWT_ISSUER: `iss` is not checked", advice))
    kinds = [name for name, value in (("a secret", settings.jwt_secret), ("a key set", settings.jwt_jwks_url)) if value]
    return found or [ok(check, f"verified with {' and '.join(kinds)}")]


def _missing(settings: Settings) -> Iterator[Finding]:
    for name in ("database_url", "redis_url"):
        if not getattr(settings, name):
            yield problem(
                "settings",
                f"{name.upper()} is not set",
                "Set it; `make run` needs neither, and is examined here while it runs in this folder.",
            )


def _misspelt(environment: Mapping[str, str]) -> Iterator[Finding]:
    names = [name.upper() for name in Settings.__struct_fields__]
    for name in sorted(environment):
        if name in names:
            continue
        alike = get_close_matches(name, names, n=1, cutoff=_ALIKE)
        if alike and alike[0] not in environment:
            yield warning("settings", f"{name} is no setting", f"Name it {alike[0]}, if that is what it is to be.")


def _contradictions(settings: Settings) -> Iterator[Finding]:
    check = "settings"
    if settings.throughline_env == "development" and not _is_loopback(settings.host):
        says = f"THROUGHLINE_ENV=development, and HOST={settings.host} is open to others"
        yield warning(check, says, "Set THROUGHLINE_ENV=production, or HOST=127.0.0.1.")
    if not settings.redis_tls_verify and "rediss" in f"{settings.redis_url} {settings.queue_redis_url}":
        advice = "Set REDIS_TLS_CA to the authority that has signed its certificate instead."
        yield warning(check, "REDIS_TLS_VERIFY=false: anybody may pose as Redis", advice)
    for name in ("tool_timeout_s", "provider_first_token_s", "provider_silence_s"):
        if getattr(settings, name) >= settings.run_deadline_s:
            says = f"{name.upper()} is not shorter than RUN_DEADLINE_S"
            yield warning(check, says, "Make it shorter: the run ends before.")
    if settings.lease_s <= _STATEMENT_S:
        says = f"LEASE_S={settings.lease_s:g} is not longer than Postgres may take for a statement ({_STATEMENT_S:g} s)"
        yield warning(check, says, "Make it longer, or a slow moment of Postgres costs runs their workers.")
    for origin in settings.cors_origins:
        parts = urlsplit(origin)
        if origin != "*" and (parts.scheme not in ("http", "https") or not parts.netloc or parts.path):
            says = f"CORS_ORIGINS has {origin}, which no browser sends as its origin"
            yield warning(check, says, "Write it as https://app.example.com, without a path or a slash at its end.")


def _tools(settings: Settings) -> Iterator[Finding]:
    if not settings.tools_module:
        return
    try:
        found = importlib.util.find_spec(settings.tools_module) is not None
    except Exception:
        found = False
    if not found:
        says = f"TOOLS_MODULE={settings.tools_module} is not found here"
        yield warning("settings", says, "Workers need it: put its folder on their PYTHONPATH.")


def _is_https(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "https" or _is_loopback(parts.hostname or "")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
