"""docker-compose.yml and Dockerfile describe the same system as the Procfile."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from common.config import Settings
from common.devserver.procfile import find_procfile, read_procfile

_ROOT = Path(__file__).resolve().parents[2]
_COMPOSE: dict[str, Any] = yaml.safe_load((_ROOT / "docker-compose.yml").read_text("utf-8"))
_SERVICES: dict[str, Any] = _COMPOSE["services"]


def test_compose_runs_the_commands_of_the_procfile() -> None:
    """There is no second way to run the system."""
    commands = read_procfile(find_procfile())
    assert _SERVICES["migrate"]["command"] == commands["release"]
    assert _SERVICES["api"]["command"] == commands["web"]
    assert _SERVICES["worker"]["command"] == commands["worker"]
    assert set(_SERVICES) == {"postgres", "valkey", "migrate", "api", "worker"}


@pytest.mark.parametrize("service", ["postgres", "valkey", "api", "worker"])
def test_compose_service_has_a_health_check(service: str) -> None:
    """Every service that stays up says whether it is well."""
    assert _SERVICES[service]["healthcheck"]["test"][0] == "CMD"


@pytest.mark.parametrize("service", ["api", "worker"])
def test_compose_service_waits_for_stores_and_schema(service: str) -> None:
    """API and workers start once the schema is there and Valkey answers."""
    assert _SERVICES[service]["depends_on"] == {
        "migrate": {"condition": "service_completed_successfully"},
        "valkey": {"condition": "service_healthy"},
    }
    assert _SERVICES["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}


def test_compose_worker_can_be_scaled() -> None:
    """`--scale worker=3` needs a worker without a name or a port of its own."""
    assert {"container_name", "ports", "hostname"}.isdisjoint(_SERVICES["worker"])


def test_compose_worker_has_time_to_drain() -> None:
    """The grace is longer than the drain and the hand-back after it."""
    grace_s = int(re.fullmatch(r"(\d+)s", _SERVICES["worker"]["stop_grace_period"])[1])  # type: ignore[index]
    assert grace_s >= Settings().worker_drain_s + 10


def test_compose_uses_the_owner_for_migrations_alone() -> None:
    """API and workers log in as a role that owns nothing, so that row level security holds for them."""
    owner = _SERVICES["postgres"]["environment"]["POSTGRES_USER"]
    users = [service for service, spec in _SERVICES.items() if f"//{owner}:" in str(spec.get("environment"))]
    assert users == ["migrate"]
    assert "in role throughline_app" in _COMPOSE["configs"]["roles"]["content"]


def test_compose_valkey_keeps_everything() -> None:
    """The event log is neither evicted nor lost in a restart."""
    command = " ".join(_SERVICES["valkey"]["command"])
    assert "--maxmemory-policy noeviction" in command
    assert "--appendonly yes" in command


def test_compose_publishes_the_api_to_this_host_alone() -> None:
    """No store has a published port, and the API listens on loopback until somebody decides otherwise."""
    published = {service: spec["ports"] for service, spec in _SERVICES.items() if "ports" in spec}
    assert list(published) == ["api"]
    assert all(port.startswith("127.0.0.1:") for port in published["api"])


def test_dockerfile_drops_rights_and_development() -> None:
    """The image runs as nobody in particular, with pinned dependencies and nothing that only development needs."""
    text = (_ROOT / "Dockerfile").read_text("utf-8")
    assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", text, re.MULTILINE)
    assert '-c constraints.txt ".[tracing]"' in text
    assert "[dev" not in text


def test_dockerfile_builds_the_page_from_its_lock_file() -> None:
    """The image has the page, built in a stage of its own: Node and npm's packages stay behind."""
    stages = (_ROOT / "Dockerfile").read_text("utf-8").split("FROM ")[1:]
    assert "npm ci" in stages[0]
    assert "COPY --from=page /page api/web/dist" in stages[1]
    assert not any("node" in stage for stage in stages[1:])


def test_dockerfile_copies_what_is_there() -> None:
    """Each source exists, and .dockerignore lets it through to the build."""
    allowed = {line[1:] for line in (_ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")}
    copies = re.findall(r"^COPY (?!--from)(.+)$", (_ROOT / "Dockerfile").read_text("utf-8"), re.MULTILINE)
    sources = [source for words in copies for source in words.split()[:-1]]
    assert len(sources) > 8
    for source in sources:
        assert (_ROOT / source).exists(), source
        assert source.partition("/")[0] in allowed, source


def test_dockerfile_copies_every_package() -> None:
    """What pyproject.toml installs is in the image: a package that is forgotten here is missing there alone."""
    text = (_ROOT / "Dockerfile").read_text("utf-8")
    packages = re.search(r"packages\.find = \{ include = \[(.*)\] \}", (_ROOT / "pyproject.toml").read_text("utf-8"))
    assert packages is not None
    for package in re.findall(r'"(\w+)\*"', packages[1]):
        assert f"COPY {package} {package}\n" in text


def test_compose_sets_nothing_that_is_no_setting() -> None:
    """A variable that nobody reads would look as if it did something."""
    known = {name.upper() for name in Settings.__struct_fields__}
    for service in ("api", "worker", "migrate"):
        assert set(_SERVICES[service]["environment"]) <= known
