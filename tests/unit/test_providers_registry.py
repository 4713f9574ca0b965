"""Which providers a worker has."""

import subprocess
import sys

import pytest

from common.config import CompatibleProvider, ConfigError, Settings
from worker.providers.base import ProviderOffer
from worker.providers.registry import build_providers, offers


def test_offers_without_keys() -> None:
    """Without any key only echo can be used; each other one names the variable that it lacks."""
    missing = {offer.name: offer.missing for offer in offers(Settings(), {})}
    assert missing == {
        "anthropic": "ANTHROPIC_API_KEY",
        "openai": "OPENAI_API_KEY",
        "openrouter": "OPENROUTER_API_KEY",
        "zai": "ZAI_API_KEY",
        "echo": None,
    }
    assert list(build_providers(Settings(), {})) == ["echo"]


def test_offers_with_keys() -> None:
    """A key makes its provider usable, with the models of the settings; so does an endpoint without a key."""
    endpoint = CompatibleProvider(name="ollama", base_url="http://127.0.0.1:1/v1", models=["llama"])
    settings = Settings(zai_api_key="k", zai_models=("glm-9",), compatible_providers=(endpoint,))
    by_name = {offer.name: offer for offer in offers(settings, {})}
    assert by_name["zai"] == ProviderOffer(name="zai", configured=True, missing=None, models=["glm-9"])
    assert by_name["ollama"] == ProviderOffer(name="ollama", configured=True, missing=None, models=["llama"])


def test_offers_of_endpoint_with_key_variable() -> None:
    """An endpoint's key is read from the variable that its configuration names."""
    endpoint = CompatibleProvider(name="mine", base_url="http://127.0.0.1:1/v1", api_key_env="MINE_KEY")
    settings = Settings(compatible_providers=(endpoint,))
    for environment, missing in (({}, "MINE_KEY"), ({"MINE_KEY": " "}, "MINE_KEY"), ({"MINE_KEY": "k"}, None)):
        assert next(offer for offer in offers(settings, environment) if offer.name == "mine").missing == missing


@pytest.mark.parametrize("name", ["anthropic", "echo", "twice"])
def test_offers_with_taken_name(name: str) -> None:
    """Two providers of one name are refused at start, by name."""
    endpoints = (
        CompatibleProvider(name=name, base_url="http://127.0.0.1:1"),
        CompatibleProvider(name="twice", base_url="http://127.0.0.1:1"),
    )
    with pytest.raises(ConfigError, match=name):
        offers(Settings(compatible_providers=endpoints), {})


def test_registry_without_keys_imports_no_sdk() -> None:
    """A worker that only echoes starts without the seconds that the SDKs take."""
    script = (
        "import sys\n"
        "from common.config import Settings\n"
        "from worker.providers.registry import build_providers, offers\n"
        "build_providers(Settings(), {}), offers(Settings(anthropic_api_key='k', zai_api_key='k'), {})\n"
        "print([name for name in ('anthropic', 'openai', 'httpx2', 'aiohttp') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
