"""From a cancel to the moment at which the model's connection is closed."""

import asyncio
import time

from bench.load import quantiles
from bench.requests import client_of, prepare
from bench.spec import Quantiles, Target
from tests.support.fake_model_server import FakeModelServer

_LOOK_S = 0.0002
_PATIENCE_S = 10


async def cancel_runs(target: Target, model: FakeModelServer, times: int) -> Quantiles:
    """One run at a time, in the middle of its answer. Milliseconds from before the request is sent.

    `model` is in this process, which does nothing else, so that the closing is seen when it happens.
    """
    took_ms = []
    async with client_of(target) as client:
        for path in await prepare(client, target, times):
            body = {"content": "Go on.", "provider": "openai", "model": "bench?n=100000&rate=50"}
            run = (await client.post(path, json=body)).raise_for_status().json()["run"]
            async with asyncio.timeout(_PATIENCE_S):
                while not model.open_streams:
                    await asyncio.sleep(_LOOK_S)
                await asyncio.sleep(0.1)
                begun = time.monotonic_ns()
                cancelling = asyncio.create_task(client.post(f"/v1/runs/{run['id']}/cancel"))
                while model.open_streams:
                    await asyncio.sleep(_LOOK_S)
                took_ms.append((time.monotonic_ns() - begun) / 1e6)
                (await cancelling).raise_for_status()
    return quantiles(took_ms)
