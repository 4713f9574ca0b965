"""Settings: every one is documented, and what cannot work is refused with the variable's name."""

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest

from common.config import CompatibleProvider, ConfigError, Settings, load_settings, redact_url, require
from common.model.run_state import Priority

_EXAMPLE = Path(__file__).resolve().parents[2] / ".env.example"
_DOCUMENTED = dict(re.findall(r"^#([A-Z][A-Z0-9_]*)=(.*)$", _EXAMPLE.read_text("utf-8"), re.MULTILINE))
_FIELDS = {field.name: field.default for field in msgspec.structs.fields(Settings)}


def test_env_example_lists_every_setting_in_order() -> None:
    """`.env.example` names exactly the fields of Settings, in their order."""
    assert list(_DOCUMENTED) == [name.upper() for name in _FIELDS]


@pytest.mark.parametrize("name", _FIELDS)
def test_env_example_shows_the_default(name: str) -> None:
    """The value that the example shows is the one that holds without it."""
    settings = load_settings({name.upper(): _DOCUMENTED[name.upper()]})
    assert getattr(settings, name) == _FIELDS[name]


def test_env_example_explains_every_group() -> None:
    """No setting stands without a comment above it or above the run of settings that it belongs to."""
    lines = _EXAMPLE.read_text("utf-8").splitlines()
    for above, line in pairwise(lines):
        if re.match(r"#[A-Z]", line):
            assert above.startswith("#"), line


def test_load_settings_without_anything_gives_defaults() -> None:
    """An empty environment is valid: what a process needs beyond it, it requires by itself."""
    assert load_settings({}) == Settings()


def test_load_settings_of_empty_variable_takes_default() -> None:
    """`PORT=` means the same as no PORT."""
    assert load_settings({"PORT": " "}).port == Settings().port


def test_load_settings_of_one_redis_uses_it_for_the_queue() -> None:
    """QUEUE_REDIS_URL and MIGRATION_DATABASE_URL follow the plain URLs unless they are set."""
    settings = load_settings({"REDIS_URL": "redis://a", "DATABASE_URL": "postgresql://b"})
    assert (settings.queue_redis_url, settings.migration_database_url) == ("redis://a", "postgresql://b")


def test_load_settings_of_lists_splits_at_commas() -> None:
    """Blanks around the commas do not count."""
    settings = load_settings({"CORS_ORIGINS": "https://a.example, https://b.example,"})
    assert settings.cors_origins == ("https://a.example", "https://b.example")


def test_load_settings_of_priorities_takes_each_once() -> None:
    """In their own order."""
    settings = load_settings({"WORKER_PRIORITIES": "background, interactive,background"})
    assert settings.worker_priorities == (Priority.INTERACTIVE, Priority.BACKGROUND)
    assert load_settings({"WORKER_PRIORITIES": "background"}).worker_priorities == (Priority.BACKGROUND,)


def test_load_settings_of_compatible_providers_reads_json() -> None:
    """Each entry becomes a provider of its own."""
    text = '[{"name": "local", "baseUrl": "http://127.0.0.1:1/v1", "apiKeyEnv": "KEY", "models": ["m"]}]'
    expected = CompatibleProvider(name="local", base_url="http://127.0.0.1:1/v1", api_key_env="KEY", models=["m"])
    assert load_settings({"COMPATIBLE_PROVIDERS": text}).compatible_providers == (expected,)


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("PORT", "eighty", " must be a whole number from 0 to 65535, not 'eighty'"),
        ("PORT", "65536", " must be a whole number from 0 to 65535, not '65536'"),
        ("PORT", "-1", " must be a whole number from 0 to 65535, not '-1'"),
        ("LEASE_S", "abc", " must be a number above 0, not 'abc'"),
        ("LEASE_S", "0", " must be a number above 0, not '0'"),
        ("LEASE_S", "nan", " must be a number above 0, not 'nan'"),
        ("RUN_DEADLINE_S", "inf", " must be a number above 0, not 'inf'"),
        ("DATABASE_POOL_SIZE", "0", " must be a whole number of at least 1, not '0'"),
        ("WORKER_MAX_RUNS", "1.5", " must be a whole number of at least 1, not '1.5'"),
        ("THROUGHLINE_ENV", "staging", " must be one of development, production, not 'staging'"),
        ("WEB_PAGE", "maybe", " must be true or false, not 'maybe'"),
        ("WORKER_PRIORITIES", "urgent", " must be one or both of interactive, background, not 'urgent'"),
        (
            "WORKER_PRIORITIES",
            "interactive,urgent",
            " must be one or both of interactive, background, not 'interactive,urgent'",
        ),
        ("WORKER_PRIORITIES", ",", " must be one or both of interactive, background, not ','"),
        ("LOG_LEVEL", "loud", " must be one of debug, error, info, warning, not 'loud'"),
    ],
)
def test_load_settings_of_bad_value_says_what_it_must_be(variable: str, value: str, message: str) -> None:
    """What cannot be read is refused: the variable to mend, what it takes, what it was given."""
    with pytest.raises(ConfigError) as caught:
        load_settings({variable: value})
    assert str(caught.value) == f"{variable}{message}"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("not json", " must be a JSON array of objects; this is no JSON: "),
        ("[{", " must be a JSON array of objects; this is no JSON: "),
        ("{}", " must be a JSON array of objects: "),
        ("[1]", ", entry 1: must be an object, not a number"),
        (
            '[{"name": "Not A Name", "baseUrl": "http://a"}]',
            ", entry 1: name must be a lower case letter, then up to 39 of a-z 0-9 _ -",
        ),
        ('[{"name": "a", "baseUrl": "http://a"}, {"name": "b"}]', ", entry 2: baseUrl is missing"),
        ('[{"name": "a", "baseUrl": "http://a", "key": "x"}]', ", entry 1: key is not known"),
        ('[{"name": "a", "baseUrl": "http://a", "models": [1]}]', ", entry 1: models[0] must be text, not a number"),
    ],
)
def test_load_settings_of_bad_provider_points_at_the_place(value: str, message: str) -> None:
    """A malformed array is told from an entry of it, which is told by its number and its field."""
    with pytest.raises(ConfigError) as caught:
        load_settings({"COMPATIBLE_PROVIDERS": value})
    assert str(caught.value).startswith(f"COMPATIBLE_PROVIDERS{message}")


@pytest.mark.parametrize("name", [name for name, default in _FIELDS.items() if type(default) in (int, float)])
def test_load_settings_of_word_for_any_number_asks_for_a_number(name: str) -> None:
    """Every number's message has the same words."""
    with pytest.raises(ConfigError, match=rf"^{name.upper()} must be a (whole )?number .*, not 'many'$"):
        load_settings({name.upper(): "many"})


@pytest.mark.parametrize(("heartbeat", "lease"), [("3", "6"), ("10", "10")])
def test_load_settings_of_lease_too_short_is_refused(heartbeat: str, lease: str) -> None:
    """A lease outlives at least two heartbeats."""
    with pytest.raises(ConfigError, match=r"LEASE_S.*HEARTBEAT_S"):
        load_settings({"HEARTBEAT_S": heartbeat, "LEASE_S": lease})


def test_require_of_missing_settings_names_all_of_them() -> None:
    """The person mends everything at once."""
    with pytest.raises(ConfigError, match="DATABASE_URL and REDIS_URL must be set"):
        require(Settings(port=1), "database_url", "redis_url", "port")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:secret@host/db", "postgresql://me:***@host/db"),
        ("redis://:secret@host:6379/0", "redis://:***@host:6379/0"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
    ],
)
def test_redact_url_hides_the_password(url: str, shown: str) -> None:
    """A URL in a log or an error has no password."""
    assert redact_url(url) == shown


def test_settings_are_immutable() -> None:
    """Nobody changes a setting while the process runs."""
    settings: Any = Settings()
    with pytest.raises(AttributeError):
        settings.port = 1
