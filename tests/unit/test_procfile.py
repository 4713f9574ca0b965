"""The Procfile as `throughline dev` reads it."""

from pathlib import Path

import pytest

from common.devserver.errors import DevServerError
from common.devserver.procfile import find_procfile, parse_procfile, read_procfile


def test_procfile_of_the_project_has_the_three_commands() -> None:
    """Whatever runs the system (dev, containers, a platform) runs these."""
    assert read_procfile(find_procfile()) == {
        "release": ["throughline", "migrate"],
        "web": ["python", "-m", "api"],
        "worker": ["python", "-m", "worker"],
    }


def test_parse_procfile_with_quotes_keeps_words_together() -> None:
    """A command is split as a shell would split it; comments and empty lines do not count."""
    text = "# comment\n\nweb: python -c 'print(1)'\n"
    assert parse_procfile(text) == {"web": ["python", "-c", "print(1)"]}


@pytest.mark.parametrize("text", ["web python", "web:", ": python"])
def test_parse_procfile_of_bad_line_names_its_number(text: str) -> None:
    """A line that is no `name: command` is an error, not ignored."""
    with pytest.raises(DevServerError, match="line 2"):
        parse_procfile(f"worker: python\n{text}\n")


def test_parse_procfile_with_open_quote_names_its_number() -> None:
    """A quote that is never closed is an error of its line."""
    with pytest.raises(DevServerError, match="line 1"):
        parse_procfile("web: python 'a\n")


def test_read_procfile_of_missing_file_names_it() -> None:
    """The message says which file was looked for."""
    with pytest.raises(DevServerError, match="cannot read /nowhere/Procfile"):
        read_procfile(Path("/nowhere/Procfile"))
