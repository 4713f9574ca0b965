"""Token buckets: a burst, then so many a second, and never more."""

from hypothesis import given
from hypothesis import strategies as st

from api.limits.buckets import Bucket, Buckets

OF_WORKSPACE, OF_USER = Bucket("workspace", 2, 4), Bucket("user", 1, 2)


def test_bucket_gives_its_burst_and_then_its_rate() -> None:
    """Three at once, the next one when the wait that was told is over; a pause fills it up to its burst and no more."""
    buckets, bucket = Buckets(), Bucket("a", 2, 3)
    assert [buckets.take([bucket], 100.0) for _ in range(4)] == [0, 0, 0, 0.5]
    assert buckets.take([bucket], 100.4) > 0
    assert buckets.take([bucket], 100.5) == 0
    assert [buckets.take([bucket], 900.0) == 0 for _ in range(4)] == [True, True, True, False]


def test_all_buckets_give_or_none() -> None:
    """A user who is refused takes nothing from the workspace, whose other users go on."""
    buckets = Buckets()
    assert [buckets.take([OF_WORKSPACE, OF_USER], 0.0) == 0 for _ in range(5)] == [True, True, False, False, False]
    other = Bucket("other", 1, 9)
    assert [buckets.take([OF_WORKSPACE, other], 0.0) == 0 for _ in range(3)] == [True, True, False]


def test_token_given_back_can_be_taken_again() -> None:
    """As if nobody had asked."""
    buckets = Buckets()
    for _ in range(5):
        assert buckets.take([OF_USER], 0.0) == 0
        buckets.give_back([OF_USER])
    assert [buckets.take([OF_USER], 0.0) == 0 for _ in range(3)] == [True, True, False]


def test_forgotten_bucket_needs_nothing_back() -> None:
    """Full ones are forgotten when there are many, also those whose last token is given back only then."""
    buckets = Buckets()
    assert buckets.take([OF_USER], 0.0) == 0
    for number in range(100_002):
        buckets.take([Bucket(str(number), 1, 1)], 9.0)
    buckets.give_back([OF_USER])
    assert [buckets.take([OF_USER], 9.0) == 0 for _ in range(3)] == [True, True, False]


def test_changed_limits_hold_at_once() -> None:
    """Who has emptied a bucket waits for a token at the new rate, whatever the old one was."""
    buckets = Buckets()
    assert [buckets.take([Bucket("a", 1, 1000)], 0.0) == 0 for _ in range(1000)] == [True] * 1000
    assert buckets.take([Bucket("a", 1, 1)], 0.0) == 1
    assert buckets.take([Bucket("a", 100, 1)], 0.0) == 0.01
    assert buckets.take([Bucket("a", 100, 1)], 0.01) == 0


@given(st.lists(st.floats(0, 3), max_size=200), st.integers(1, 50), st.integers(1, 20))
def test_no_window_sees_more_than_burst_and_rate(pauses: list[float], rate: int, burst: int) -> None:
    """However requests come, those of any stretch are at most the burst and what has come back in it; who waits as long
    as told is let in.
    """
    buckets, bucket = Buckets(), Bucket("a", rate, burst)
    now, taken = 0.0, list[float]()
    for pause in pauses:
        now += pause
        wait = buckets.take([bucket], now)
        if wait > 0:
            now += wait
            assert buckets.take([bucket], now) == 0
        taken.append(now)
    for first, begin in enumerate(taken):
        for last in range(first, len(taken)):
            assert last - first + 1 <= burst + (taken[last] - begin) * rate + 0.1
