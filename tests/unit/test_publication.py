"""What the live channel of a run carries."""

import pytest

from common.eventlog.publication import Publication, parse_publication


def test_parse_publication_reads_ids_and_events() -> None:
    """The header names attempt, first and last n; each line after it is one event."""
    assert parse_publication(b"2-4-5\nd\ne") == Publication(2, 4, 5, (b"d", b"e"))


def test_parse_publication_of_a_header_alone_has_no_events() -> None:
    """Without events the reader knows only which to fetch."""
    assert parse_publication(b"2-4-90") == Publication(2, 4, 90, None)


@pytest.mark.parametrize("data", [b"", b"x", b"1-2", b"1-2-3-4", b"1-2-3\na", b"1-2-2\na\nb"])
def test_parse_publication_refuses_what_no_append_publishes(data: bytes) -> None:
    """A malformed publication is an error, not an empty one."""
    with pytest.raises(ValueError, match=r"\S"):
        parse_publication(data)
