"""`.env` files."""

import pytest

from common.devserver.dotenv import parse_dotenv
from common.devserver.errors import DevServerError


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=1", "1"),
        ("export A=1", "1"),
        ("A = 1 ", "1"),
        ("A=", ""),
        ("A=1 # one", "1"),
        ("A=a#b", "a#b"),
        ("A='1 # one'", "1 # one"),
        ('A="a b" # one', "a b"),
        ("A=$HOME", "$HOME"),
        ("A=postgresql://me:p=w@host/db?x=1", "postgresql://me:p=w@host/db?x=1"),
    ],
)
def test_parse_dotenv_reads_a_value(line: str, value: str) -> None:
    """Quotes keep blanks and `#`; nothing is expanded."""
    assert parse_dotenv(f"# comment\n\n{line}\n") == {"A": value}


@pytest.mark.parametrize("line", ["A", "1A=2", "A='open", 'A="a" b'])
def test_parse_dotenv_of_bad_line_names_its_number(line: str) -> None:
    """A line that cannot be read is an error, not ignored."""
    with pytest.raises(DevServerError, match="line 2"):
        parse_dotenv(f"B=1\n{line}\n")
