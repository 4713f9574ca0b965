"""Failpoints: nothing unless a test has armed one, then what it says, as often as it says."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from common import failpoints
from common.failpoints import arm, failpoint
from tests.support.failpoints import Armed, Failpoint, Failpoints, arm_all


@pytest.fixture(autouse=True)
def _disarmed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failpoints, "_armed", dict[str, Callable[[], Awaitable[None]]]())


async def test_failpoint_unarmed_does_nothing() -> None:
    """Nor does one while another is armed."""
    await failpoint("claim.after")
    arm("bell.after", _fail)
    await failpoint("claim.after")


async def test_failpoint_armed_raises_what_its_action_raises() -> None:
    """The place sees it as its own failure."""
    arm("claim.after", _fail)
    with pytest.raises(ConnectionResetError):
        await failpoint("claim.after")


def test_arming_a_place_that_is_not_there_is_refused() -> None:
    """A misspelt name would be a fault that never happens."""
    with pytest.raises(KeyError):
        arm("claim.afterwards", _fail)


async def test_failpoint_acts_at_its_passing_as_often_as_it_may(tmp_path: Path) -> None:
    """From the `on`-th passing, `times` times; and who looks from outside is told."""
    folder = tmp_path / "failpoints"
    seen = Failpoints(folder)
    arm_all(Armed(str(folder), (Failpoint("append.after", "raise", on=2, times=2),)))
    failed = []
    for passing in range(1, 6):
        try:
            await failpoint("append.after")
        except ConnectionResetError:
            failed.append(passing)
    assert failed == [2, 3]
    assert (seen.fired("append.after"), seen.fired("append.retry")) == (2, 0)


async def test_failpoint_that_blocks_goes_on_when_let_go(tmp_path: Path) -> None:
    """Once it is let go, nobody is held up any more."""
    folder = tmp_path / "failpoints"
    seen = Failpoints(folder)
    arm_all(Armed(str(folder), (Failpoint("append.after", "block"),)))
    passing = asyncio.create_task(failpoint("append.after"))
    await seen.wait_until_fired("append.after")
    assert not passing.done()
    seen.let_go("append.after")
    async with asyncio.timeout(5):
        await passing


async def _fail() -> None:
    raise ConnectionResetError
