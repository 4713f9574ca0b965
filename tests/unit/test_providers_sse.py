"""Server-sent events out of bytes."""

import pytest

from worker.providers.sse import SseSplitter

STREAM = (
    b": OPENROUTER PROCESSING\n\nevent: first\ndata: one\n\nid: 7\nretry: 10\ndata:two\ndata:  lines\n\n"
    b"data\n\nevent: empty\n\n\n\ndata: f\xc3\xbcnf\n\n"
)
PAYLOADS = [b"one", b"two\n lines", "fünf".encode()]


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 1000])
def test_splitter_with_any_chunks(line_end: bytes, size: int) -> None:
    """All three line ends, comments and several data lines are understood, however the bytes are cut."""
    # One more byte shows that a CR at the very end was the end of its line.
    data = STREAM.replace(b"\n", line_end) + b":"
    splitter = SseSplitter()
    payloads = [payload for at in range(0, len(data), size) for payload in splitter.feed(data[at : at + size])]
    assert payloads == PAYLOADS


def test_splitter_without_blank_line() -> None:
    """An event whose blank line has not come is not given: it may be cut off."""
    splitter = SseSplitter()
    assert splitter.feed(b'data: {"whole": true}\n') == []
    assert splitter.feed(b"\n") == [b'{"whole": true}']


def test_splitter_with_payload_in_many_chunks() -> None:
    """A payload longer than any chunk comes out whole."""
    splitter = SseSplitter()
    parts = [b"data: ", *[b"x" * 1000] * 50, b"\n", b"\n"]
    assert [payload for part in parts for payload in splitter.feed(part)] == [b"x" * 50_000]
