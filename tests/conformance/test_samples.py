"""The wire samples, byte by byte."""

import pytest

from tests.conformance.samples import SAMPLES, fold_chunks, make_fold, read_bytes, read_expected
from worker.providers.sse import SseSplitter

FINISHED = [sample for sample in SAMPLES if read_expected(sample)[-1][0] == "Finish"]


@pytest.mark.parametrize("sample", SAMPLES)
def test_sample_read_at_once(sample: str) -> None:
    """What a provider sends becomes exactly the events that are noted beside it."""
    assert fold_chunks(sample, [read_bytes(sample)], clean_end=True) == read_expected(sample)


@pytest.mark.parametrize("sample", SAMPLES)
def test_sample_split_at_every_byte(sample: str) -> None:
    """Events do not depend on how the network cut the bytes: at every byte at once, or anywhere in two."""
    data, expected = read_bytes(sample), read_expected(sample)
    assert fold_chunks(sample, (bytes([byte]) for byte in data), clean_end=True) == expected
    for cut in range(1, len(data), 7):
        assert fold_chunks(sample, [data[:cut], data[cut:]], clean_end=True) == expected


@pytest.mark.parametrize("sample", FINISHED)
def test_sample_cut_at_every_byte(sample: str) -> None:
    """A stream whose connection breaks before its last event never finishes, at whichever byte."""
    fold, splitter = make_fold(sample), SseSplitter()
    data = read_bytes(sample)
    for at, byte in enumerate(data):
        assert not fold.finished, f"finished by the first {at} of {len(data)} bytes"
        for payload in splitter.feed(bytes([byte])):
            list(fold.feed(payload))
    list(fold.end())
    assert fold.finished


@pytest.mark.parametrize("sample", [sample for sample in FINISHED if sample.startswith("chat/")])
def test_sample_ended_cleanly_at_every_byte(sample: str) -> None:
    """Where `[DONE]` may be missing, a body that ends early as if complete finishes only with its whole answer."""
    data = read_bytes(sample)
    whole = [event for event in read_expected(sample) if event[0] != "UsageReport"]
    for cut in range(len(data)):
        events = fold_chunks(sample, [data[:cut]], clean_end=True)
        if events and events[-1][0] == "Finish":
            assert [event for event in events if event[0] != "UsageReport"] == whole
