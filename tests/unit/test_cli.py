"""The `throughline` command: tokens, and what it says to bad arguments."""

import re
import stat
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import jwt
import pytest

from common.devserver.cli import main
from common.devserver.mint_token import DEVELOPMENT_WORKSPACE

_SECRET = "a secret for tests that is long enough"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A folder and an environment without settings."""
    for name in ("JWT_SECRET", "JWT_ISSUER", "JWT_AUDIENCE", "THROUGHLINE_ENV", "DATABASE_URL", "PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("THROUGHLINE_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)


def test_token_with_all_options_has_supabase_shape(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The claims are those that the API reads, signed with JWT_SECRET."""
    monkeypatch.setenv("JWT_SECRET", _SECRET)
    monkeypatch.setenv("JWT_ISSUER", "https://issuer.example")
    workspace = str(uuid4())
    arguments = ["--workspace", workspace, "--user", "ada", "--role", "viewer", "--hours", "2"]
    assert main(["token", *arguments]) == 0
    claims = _claims(capsys, _SECRET)
    assert claims["sub"] == "ada"
    assert claims["role"] == "authenticated"
    assert claims["iss"] == "https://issuer.example"
    assert claims["exp"] - claims["iat"] == 2 * 3600
    assert claims["iat"] == pytest.approx(time.time(), abs=60)
    assert "is_superuser" not in claims
    [membership] = claims["workspaces"]
    assert membership["workspace_id"] == workspace
    assert membership["role"] == "viewer"
    assert set(membership) == {"workspace_id", "workspace_name", "organization_id", "role"}


def test_token_is_a_superusers_when_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The claim that opens the operators' page is the boolean true, and never there by default."""
    monkeypatch.setenv("JWT_SECRET", _SECRET)
    assert main(["token", "--superuser"]) == 0
    assert _claims(capsys, _SECRET)["is_superuser"] is True


def test_token_without_options_is_the_developers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is signed with the data folder's own secret, which is made once and closed to others."""
    assert main(["token"]) == 0
    secret = tmp_path / "data" / "secret"
    first = _claims(capsys, secret.read_text())
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert main(["token"]) == 0
    assert _claims(capsys, secret.read_text())["workspaces"] == first["workspaces"]
    assert first["workspaces"][0]["workspace_id"] == str(DEVELOPMENT_WORKSPACE)
    assert list(secret.parent.iterdir()) == [secret]


def test_token_in_production_needs_the_secret(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In production no secret is made up."""
    monkeypatch.setenv("THROUGHLINE_ENV", "production")
    assert main(["token"]) == 1
    assert "JWT_SECRET must be set" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


def test_token_reads_dotenv(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Settings in `.env` of the working directory count."""
    (tmp_path / ".env").write_text(f"JWT_SECRET='{_SECRET}'\n")
    assert main(["token"]) == 0
    assert _claims(capsys, _SECRET)["sub"] == "developer"


@pytest.mark.parametrize(
    ("secret", "hours", "message"),
    [("short", "1", "at least 32 bytes"), (_SECRET, "721", "at most 720 hours")],
)
def test_token_that_the_api_would_refuse_is_not_minted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], secret: str, hours: str, message: str
) -> None:
    """A short secret or a long life is an error here, not a 401 later."""
    monkeypatch.setenv("JWT_SECRET", secret)
    assert main(["token", "--hours", hours]) == 1
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fly"],
        ["dev", "--port", "65536"],
        ["dev", "--port", "http"],
        ["dev", "--workers", "0"],
        ["token", "--workspace", "mine"],
        ["token", "--role", "king"],
        ["token", "--hours", "0"],
        ["token", "--hours", "nan"],
        ["health", "database"],
        ["doctor", "--fix"],
        ["housekeep", "--days", "1"],
    ],
)
def test_bad_arguments_end_with_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 2, and a message instead of a traceback."""
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert capsys.readouterr().err.startswith("usage: throughline")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dev", "--port", "http"], "argument --port: a port is a number from 0 to 65535, not 'http'"),
        (["dev", "--workers", "-1"], "argument --workers: a whole number of at least 1, not '-1'"),
        (["token", "--workspace", "mine"], "argument --workspace: a UUID, not 'mine'"),
        (["token", "--hours", "long"], "argument --hours: a number above 0, not 'long'"),
    ],
)
def test_bad_argument_is_told_what_it_must_be(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message names the argument, what it takes, and what it was given."""
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("command", ["dev", "token"])
def test_help_explains_every_option(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No option of a command stands in the help without words of its own."""
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    # The words for a long option stand on the next line.
    text = re.sub(r"\n {10,}", "  ", capsys.readouterr().out.partition("options:")[2])
    options = [line for line in text.splitlines() if line.startswith("  -")]
    assert len(options) > 4
    for line in options:
        assert re.fullmatch(r"  -\S.*?\S {2,}\w.*", line), line


def test_migrate_without_database_names_the_variable(capsys: pytest.CaptureFixture[str]) -> None:
    """It says what to set."""
    assert main(["migrate"]) == 1
    assert "MIGRATION_DATABASE_URL must be set" in capsys.readouterr().err


def test_migrate_of_unreachable_database_hides_the_password(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The message names the database, not its password."""
    monkeypatch.setenv("DATABASE_URL", f"postgresql://me:hidden-password@/db?host={tmp_path}")
    assert main(["migrate"]) == 1
    message = capsys.readouterr().err
    assert "cannot reach the database" in message
    assert "hidden-password" not in message


def test_health_of_absent_api_is_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit status 1 where nobody answers."""
    monkeypatch.setenv("PORT", "1")
    assert main(["health", "api"]) == 1


def _claims(capsys: pytest.CaptureFixture[str], secret: str) -> dict[str, Any]:
    token = capsys.readouterr().out.strip()
    claims: dict[str, Any] = jwt.decode(token, secret, algorithms=["HS256"], audience="authenticated")
    return claims
