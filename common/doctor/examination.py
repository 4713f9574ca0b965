"""One examination: the settings first, then everything that they name."""

import asyncio
from collections.abc import Awaitable, Mapping

from common.config import ConfigError, load_settings
from common.doctor.configuration import check_settings, check_tokens
from common.doctor.findings import Finding, problem
from common.doctor.machine import check_open_files, check_page
from common.doctor.postgres import check_postgres
from common.doctor.providers import ask_providers, check_keys
from common.doctor.redis import check_redis


async def examine(environment: Mapping[str, str], *, ask: bool = False) -> list[Finding]:
    """All findings, in the order in which a person reads them. With `ask` it goes to model providers, too.

    Never raises for what is wrong: that is a finding. Takes seconds, also where nothing answers.
    """
    try:
        settings = load_settings(environment)
    except ConfigError as error:
        return [
            problem("settings", str(error), "Mend this variable; nothing starts before, and nothing else is examined.")
        ]
    found = [
        *check_settings(settings, environment),
        *check_tokens(settings),
        *check_keys(settings, environment),
        check_open_files(),
        check_page(settings),
    ]
    looks: list[Awaitable[list[Finding]]] = []
    if settings.database_url:
        looks.append(check_postgres(settings))
    if settings.redis_url:
        looks.append(check_redis(settings))
    if ask:
        looks.append(ask_providers(settings, environment))
    for findings in await asyncio.gather(*looks):
        found += findings
    return found
