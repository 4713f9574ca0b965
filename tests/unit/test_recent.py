"""What many ask for is read once."""

import asyncio

import pytest

from common.recent import Recent


async def test_many_operators_read_once() -> None:
    """Who asks at the same time, or soon after, gets what was read already; a failure is not kept."""
    readings = 0

    async def read() -> int:
        nonlocal readings
        readings += 1
        if readings == 1:
            raise ConnectionRefusedError
        await asyncio.sleep(0)
        return readings

    recent = Recent(read, 60)
    with pytest.raises(ConnectionRefusedError):
        await recent.get()
    assert await asyncio.gather(*(recent.get() for _ in range(20))) == [2] * 20
    assert await Recent(read, 0).get() == 3
