"""Keeps the worker's own secrets out of what tools can see and say."""

import ctypes
import os
from urllib.parse import urlsplit

from common.config import Settings, url_passwords

_SECRET_SUFFIXES = ("_api_key", "_secret", "_token", "_headers", "database_url", "redis_url")
_SHORTEST_SECRET = 8
_hidden: set[str] = set()


def hide_keys(settings: Settings) -> None:
    """Removes provider keys, secrets and the stores' URLs from this process's environment.

    Call it once everything that reads the environment has read it. Neither tools nor the processes that they
    start find them, nor does `/proc/self/environ` show them; `redact` knows their values from then on.
    Variables that are no settings of ours stay: a tool may need a key of its own.
    """
    names = [name for name in Settings.__struct_fields__ if name.endswith(_SECRET_SUFFIXES)]
    for name in names:
        _remember(getattr(settings, name))
    variables = {name.upper() for name in names}
    variables |= {provider.api_key_env for provider in settings.compatible_providers if provider.api_key_env}
    for variable in variables & os.environ.keys():
        _remember(os.environ[variable])
        _overwrite(variable)
        del os.environ[variable]


def redact(text: str) -> str:
    """`text` with every hidden value replaced by `***`."""
    for secret in _hidden:
        if secret in text:
            text = text.replace(secret, "***")
    return text


def _remember(secret: str) -> None:
    """Of a URL its passwords alone; a password that is the user's name would be found in any text."""
    secrets = [secret]
    if "://" in secret:
        user = urlsplit(secret).username
        secrets = [password for password in url_passwords(secret) if password != user]
    _hidden.update(one for one in secrets if len(one) >= _SHORTEST_SECRET)


def _overwrite(variable: str) -> None:
    """Blanks the value where the process was given it: unsetting alone leaves it in `/proc/self/environ`."""
    if os.name != "posix":
        return
    getenv = ctypes.CDLL(None).getenv
    getenv.argtypes, getenv.restype = [ctypes.c_char_p], ctypes.c_void_p
    address = getenv(os.fsencode(variable))
    if address:
        ctypes.memset(address, 0, len(ctypes.string_at(address)))
