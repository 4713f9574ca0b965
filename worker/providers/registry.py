"""Which providers this worker has, by its settings. SDKs are imported only for providers that are used."""

import os
from collections.abc import Callable, Mapping

import msgspec

from common.config import ConfigError, Settings
from worker.providers.base import Provider, ProviderOffer
from worker.providers.chat_request import Dialect
from worker.providers.echo import EchoProvider

_ECHO_MODELS = ["echo", "echo?delayMs=50", "echo?delayMs=50&repeat=20&tool=current_time"]


class _Known(msgspec.Struct, frozen=True, kw_only=True):
    """A provider that could be used: `missing` names the variable without which it cannot."""

    name: str
    missing: str | None
    models: list[str]
    build: Callable[[], Provider]


def build_providers(settings: Settings, environment: Mapping[str, str] | None = None) -> dict[str, Provider]:
    """Every provider that has its key, by name. Costs seconds for the first of an SDK. Raises ConfigError."""
    return {known.name: known.build() for known in _known(settings, environment) if known.missing is None}


def offers(settings: Settings, environment: Mapping[str, str] | None = None) -> list[ProviderOffer]:
    """Every provider, also those without a key, for the catalogue. Imports no SDK. Raises ConfigError."""
    return [
        ProviderOffer(
            name=known.name,
            configured=known.missing is None,
            missing=known.missing,
            models=known.models,
        )
        for known in _known(settings, environment)
    ]


def _known(settings: Settings, environment: Mapping[str, str] | None) -> list[_Known]:
    known = [
        _Known(
            name="anthropic",
            missing=None if settings.anthropic_api_key else "ANTHROPIC_API_KEY",
            models=list(settings.anthropic_models),
            build=lambda: _anthropic(settings),
        ),
        _Known(
            name="openai",
            missing=None if settings.openai_api_key else "OPENAI_API_KEY",
            models=list(settings.openai_models),
            build=lambda: _openai(settings),
        ),
        _Known(
            name="openrouter",
            missing=None if settings.openrouter_api_key else "OPENROUTER_API_KEY",
            models=list(settings.openrouter_models),
            build=lambda: _compatible(
                settings, "openrouter", settings.openrouter_base_url, settings.openrouter_api_key, "openrouter"
            ),
        ),
        _Known(
            name="zai",
            missing=None if settings.zai_api_key else "ZAI_API_KEY",
            models=list(settings.zai_models),
            build=lambda: _compatible(settings, "zai", settings.zai_base_url, settings.zai_api_key, "zai"),
        ),
        *_configured(settings, os.environ if environment is None else environment),
        _Known(name="echo", missing=None, models=_ECHO_MODELS, build=EchoProvider),
    ]
    names = [provider.name for provider in known]
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"COMPATIBLE_PROVIDERS: the name {repeated} is taken")
    return known


def _configured(settings: Settings, environment: Mapping[str, str]) -> list[_Known]:
    known = []
    for endpoint in settings.compatible_providers:
        variable = endpoint.api_key_env
        key = environment.get(variable, "").strip() if variable else None

        def build(name: str = endpoint.name, url: str = endpoint.base_url, key: str | None = key) -> Provider:
            return _compatible(settings, name, url, key, "plain")

        missing = variable if variable and not key else None
        known.append(_Known(name=endpoint.name, missing=missing, models=list(endpoint.models), build=build))
    return known


def _anthropic(settings: Settings) -> Provider:
    from worker.providers.anthropic import AnthropicProvider

    return AnthropicProvider(settings)


def _openai(settings: Settings) -> Provider:
    from worker.providers.openai import OpenAIProvider

    return OpenAIProvider(settings)


def _compatible(settings: Settings, name: str, base_url: str, key: str | None, dialect: Dialect) -> Provider:
    from worker.providers.openai_compatible import CompatibleProvider

    return CompatibleProvider(settings, name=name, base_url=base_url, api_key=key, dialect=dialect)
