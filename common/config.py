"""Settings, read once from the environment. `.env.example` lists every one; a test compares the two."""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec

from common.config_wording import entry_problem, wanted
from common.model.run_state import Priority

Positive = Annotated[float, msgspec.Meta(gt=0)]
Count = Annotated[int, msgspec.Meta(ge=1)]
Days = Annotated[int, msgspec.Meta(ge=0, le=36500)]
"""0: for ever."""
Limit = Annotated[int, msgspec.Meta(ge=0, le=10**15)]

DEFAULT_MODEL = "claude-sonnet-4-20250514"
"""The one place that names the default model (provider `anthropic`)."""


class CompatibleProvider(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """An OpenAI-compatible endpoint by configuration. The key is read from the variable `api_key_env` names."""

    name: Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_-]{0,39}$")]
    base_url: str
    api_key_env: str | None = None
    models: list[str] = msgspec.field(default_factory=list)


class Settings(msgspec.Struct, kw_only=True, frozen=True):
    """One field per environment variable, named in lower case. `_s` is seconds, `_bytes` bytes."""

    throughline_env: Literal["development", "production"] = "production"
    throughline_data: Path = Path(".throughline")
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    # Stores
    database_url: str = ""
    migration_database_url: str = ""
    database_role: str = "throughline_app"
    database_pool_size: Count = 10
    database_statement_cache: Annotated[int, msgspec.Meta(ge=0)] = 100
    redis_url: str = ""
    queue_redis_url: str = ""
    redis_tls_verify: bool = True
    redis_tls_ca: str = ""

    # API
    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 8000
    cors_origins: tuple[str, ...] = ()
    max_body_bytes: Count = 1_000_000
    web_page: bool = False

    # Tokens
    jwt_secret: str = ""
    jwt_jwks_url: str = ""
    jwt_audience: str = "authenticated"
    jwt_issuer: str = ""
    jwt_max_lifetime_s: Positive = 30 * 24 * 3600
    jwt_jwks_ttl_s: Positive = 600

    # Runs
    default_provider: str = "anthropic"
    default_model: str = DEFAULT_MODEL
    run_deadline_s: Positive = 900
    stream_ttl_s: Count = 3600
    lease_s: Positive = 10
    heartbeat_s: Positive = 3
    sweep_s: Positive = 1

    # Retention
    retention_run_details_days: Days = 30
    retention_deleted_days: Days = 30
    housekeeping_s: Positive = 300

    # Limits
    limit_requests_per_s: Limit = 1_000
    limit_requests_burst: Limit = 20_000
    limit_user_requests_per_s: Limit = 200
    limit_user_requests_burst: Limit = 4_000
    limit_queued_runs: Limit = 10_000
    limit_user_queued_runs: Limit = 2_000
    limit_running_runs: Limit = 0
    limit_tokens_per_day: Limit = 0
    limit_user_tokens_per_day: Limit = 0
    limit_streams: Limit = 10_000
    limit_user_streams: Limit = 2_000
    limit_sockets: Limit = 5_000
    limit_user_sockets: Limit = 1_000
    limit_tool_calls_per_step: Limit = 128
    limit_tool_calls_per_run: Limit = 2_000

    # Worker
    worker_max_runs: Count = 400
    worker_priorities: tuple[Priority, ...] = tuple(Priority)
    worker_drain_s: Positive = 25
    tools_module: str = ""
    tool_timeout_s: Positive = 60

    # Providers
    provider_connect_s: Positive = 5
    provider_first_token_s: Positive = 60
    provider_silence_s: Positive = 60
    provider_retries: Annotated[int, msgspec.Meta(ge=0)] = 2
    provider_retry_budget: Annotated[int, msgspec.Meta(ge=0)] = 400
    provider_retry_ratio: Positive = 0.1
    provider_retry_refill_s: Positive = 1
    anthropic_api_key: str = ""
    anthropic_base_url: str = "https://api.anthropic.com"
    anthropic_models: tuple[str, ...] = (DEFAULT_MODEL, "claude-sonnet-5-5", "claude-opus-5-5", "claude-haiku-5-5")
    openai_api_key: str = ""
    openai_base_url: str = "https://api.openai.com/v1"
    openai_models: tuple[str, ...] = ("gpt-5", "gpt-5-mini", "gpt-4.1")
    openrouter_api_key: str = ""
    openrouter_base_url: str = "https://openrouter.ai/api/v1"
    openrouter_models: tuple[str, ...] = ("anthropic/claude-sonnet-4", "openai/gpt-5")
    zai_api_key: str = ""
    zai_base_url: str = "https://api.z.ai/api/paas/v4"
    zai_models: tuple[str, ...] = ("glm-4.6", "glm-4.5-air")
    compatible_providers: tuple[CompatibleProvider, ...] = ()

    # Usage
    model_prices: str = ""

    # Watching
    access_log: bool = True
    metrics_token: str = ""
    worker_host: str = "127.0.0.1"
    worker_metrics_port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    otel_exporter_otlp_endpoint: str = ""
    otel_exporter_otlp_headers: str = ""


class ConfigError(Exception):
    """A setting is missing or malformed; the message names the variable."""


def load_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Reads `environment` (default: the process's). An empty variable counts as absent.

    Lists are comma separated; COMPATIBLE_PROVIDERS is a JSON array. Raises ConfigError.
    """
    environment = os.environ if environment is None else environment
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(Settings):
        text = environment.get(field.name.upper(), "").strip()
        if text:
            values[field.name] = _read(field, text)
    values.setdefault("queue_redis_url", values.get("redis_url", ""))
    values.setdefault("migration_database_url", values.get("database_url", ""))
    settings = Settings(**values)
    if settings.heartbeat_s * 2 >= settings.lease_s:
        raise ConfigError("LEASE_S must be more than twice HEARTBEAT_S, or a single lost heartbeat loses every run")
    return settings


def require(settings: Settings, *names: str) -> None:
    """Raises ConfigError unless each of the named settings has a value."""
    missing = [name.upper() for name in names if not getattr(settings, name)]
    if missing:
        raise ConfigError(f"{' and '.join(missing)} must be set; see .env.example")


def redact_url(url: str) -> str:
    """The URL without its passwords, for logs and errors."""
    for password in filter(None, url_passwords(url)):
        url = url.replace(f":{password}@", ":***@").replace(f"password={password}", "password=***")
    return url


def url_passwords(url: str) -> list[str]:
    """The passwords as they stand in the URL: before the host, and in its options."""
    parts = urlsplit(url)
    options = (option.partition("=") for option in parts.query.split("&"))
    return [parts.password or "", *(value for name, _, value in options if name.endswith("password"))]


def _read(field: msgspec.structs.FieldInfo, text: str) -> Any:
    if field.type == tuple[CompatibleProvider, ...]:
        return _read_providers(field.name.upper(), text)
    if field.type == tuple[str, ...]:
        return _split(text)
    if field.type == tuple[Priority, ...]:
        return _read_priorities(field.name.upper(), text)
    try:
        value = msgspec.convert(text, field.type, strict=False, dec_hook=_decode)
    except msgspec.ValidationError:
        value = None
    # No timer takes "inf".
    if value is None or value == math.inf:
        raise ConfigError(f"{field.name.upper()} must be {wanted(field.type)}, not {text!r}")
    return value


def _read_priorities(variable: str, text: str) -> tuple[Priority, ...]:
    chosen = _split(text)
    if not chosen or not set(chosen) <= set(Priority):
        raise ConfigError(f"{variable} must be one or both of {', '.join(Priority)}, not {text!r}")
    return tuple(priority for priority in Priority if priority in chosen)


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _read_providers(variable: str, text: str) -> tuple[CompatibleProvider, ...]:
    try:
        entries = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise ConfigError(f"{variable} must be a JSON array of objects; this is no JSON: {error}") from None
    if not isinstance(entries, list):
        raise ConfigError(f"{variable} must be a JSON array of objects: [{{...}}]")
    try:
        return msgspec.convert(entries, tuple[CompatibleProvider, ...])
    except msgspec.ValidationError as error:
        raise ConfigError(f"{variable}, {entry_problem(str(error))}") from None


def _decode(kind: type, value: Any) -> Any:
    if kind is Path:
        return Path(value)
    raise NotImplementedError(kind)
