"""Patience with a provider: when it ends."""

import asyncio
import time

import pytest

from worker.run.patience import Patience


async def test_silence_ends_the_wait() -> None:
    """Nothing renews it: after the limit it is a TimeoutError, not a cancellation."""
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        async with Patience(0.02):
            await asyncio.Event().wait()
    assert 0.02 <= time.monotonic() - began < 2


async def test_renewed_wait_goes_on_under_its_new_limit() -> None:
    """What comes in time starts the wait anew, with the limit that is given then."""
    patience = Patience(60)
    with pytest.raises(TimeoutError):
        async with patience:
            patience.renew(0.02)
            await asyncio.Event().wait()
    assert patience.limit_s == 0.02
