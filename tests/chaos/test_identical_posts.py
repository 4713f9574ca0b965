"""Clients post the same again and again, at once and after drops, while APIs die and replies are lost."""

import asyncio
import json
from typing import Any

import httpx

from tests.support.audit import audit
from tests.support.chaos import Chaos
from tests.support.failpoints import Failpoint
from tests.support.insist import insist, insist_on_conversation
from tests.support.kept_api import Life, kept_apis
from tests.support.system import Client, System, running_system

_POSTS = 50


async def test_identical_posts_make_one_run(chaos: Chaos) -> None:
    """50 identical POSTs with one Idempotency-Key at once, over two APIs: 1 run, 50 equal answers; else 422."""
    async with running_system(forked=True) as system:
        apis = await asyncio.gather(system.api(), system.api())
        first = await system.client(apis[0])
        clients = [first, await system.client(apis[1], first.workspace_id)]
        keys = chaos.pick(4, 60)
        for number in range(keys):
            path = f"/v1/conversations/{await clients[0].conversation()}/messages"
            bodies = ["same"] if number % 2 else ["same", "other"]
            answers = await asyncio.gather(
                *(
                    _ask(clients[place % 2], path, f"key-{number}", {"content": bodies[place % len(bodies)]})
                    for place in range(_POSTS)
                )
            )
            accepted = [answer.content for answer in answers if answer.status_code == 202]
            assert len(accepted) == _POSTS / len(bodies)
            assert len(set(accepted)) == 1
            assert {answer.status_code for answer in answers} <= {202, 422}
            later = await _ask(clients[0], path, f"key-{number}", {"content": "yet another"})
            assert (later.status_code, later.json()["error"]["code"]) == (422, "idempotency_key_reused")
        chaos.figure("keys", keys)
        chaos.figure("runs too many", len(await system.rows("select from runs")) - keys, 0)
        chaos.figure("messages too many", len(await system.rows("select from messages")) - keys, 0)


async def test_posts_repeated_after_drops_make_one_run(chaos: Chaos) -> None:
    """APIs die and replies are lost around the commit, clients repeat: one run per key, and equal answers."""
    async with (
        running_system(forked=True) as system,
        kept_apis(system, chaos.fault, [_lives(system, chaos, turn) for turn in (0, 1)]) as (apis, clients),
    ):
        await system.worker(**chaos.steady)
        keys, parallel = chaos.pick(24, 400), asyncio.Semaphore(chaos.pick(8, 16))

        async def thrice(path: str, key: str, body: dict[str, Any]) -> bytes:
            """The one answer to a request that is made three times at once."""
            answers = await asyncio.gather(*(_insist(chaos, clients, path, key, body) for _ in range(3)))
            assert len(set(answers)) == 1, answers
            return answers[0]

        async def converse(number: int) -> None:
            """Half of the conversations are answered a second time, at once."""
            async with parallel:
                path = f"/v1/conversations/{await insist_on_conversation(clients[number % 2])}/messages"
                message_id = json.loads(await thrice(path, f"post-{number}", {"content": "once"}))["message"]["id"]
                if number % 2:
                    await thrice(f"{path}/{message_id}/regenerate", f"again-{number}", {"ifBusy": "interrupt"})

        await asyncio.gather(*(converse(number) for number in range(keys)))
        chaos.figure("conversations", keys)
        chaos.figure("APIs that died", sum(api.deaths for api in apis))
        for name in ("request.before_commit", "request.after_commit"):
            chaos.figure(f"deaths and errors at {name}", system.failpoints.fired(name))
            assert system.failpoints.fired(name) > chaos.pick(2, 20)

        await system.all_ended()
        [row] = await system.rows(
            """
            select count(*) as runs, count(distinct conversation_id) as conversations,
                   count(*) filter (where superseded_at is null and state <> 'completed') as others,
                   extract(epoch from max(started_at - created_at))::float8 as longest_s
            from runs
            """
        )
        chaos.figure("runs too many or too few", abs(row["runs"] - keys - keys // 2), 0)
        chaos.figure("conversations without a run", keys - row["conversations"], 0)
        chaos.figure("runs that nobody replaced, and did not complete", row["others"], 0)
        chaos.figure("longest wait of a run for its worker", row["longest_s"], unit="s")
        users = await system.rows("select from messages where role = 'user'")
        chaos.figure("messages too many", len(users) - keys, 0)
        problems = await audit(system)
        assert not problems, problems[:10]


def _lives(system: System, chaos: Chaos, turn: int) -> Life:
    """Processes that fail before the commit and die after it, then the other way round, …; the last ones are spared."""

    def failpoints(number: int) -> tuple[Failpoint, ...]:
        if number >= chaos.pick(2, 10):
            return ()
        names = ["request.before_commit", "request.after_commit"]
        raising, ending = names if (number + turn) % 2 else reversed(names)
        return (
            Failpoint(raising, "raise", times=system.failpoints.fired(raising) + 3),
            Failpoint(ending, "exit", on=chaos.random.randint(4, 10), times=1000),
        )

    return failpoints


async def _ask(client: Client, path: str, key: str, body: dict[str, Any], timeout_s: float = 30) -> httpx.Response:
    return await client.http.post(path, json=body, headers={"Idempotency-Key": key}, timeout=timeout_s)


async def _insist(chaos: Chaos, clients: list[Client], path: str, key: str, body: dict[str, Any]) -> bytes:
    """Asks either API until one accepts; every other attempt is dropped by the client itself, a moment later."""
    dice = chaos.random

    async def ask() -> httpx.Response:
        await asyncio.sleep(dice.uniform(0, 0.05))
        timeout_s = dice.choice((10, dice.uniform(0.001, 0.03)))
        return await _ask(dice.choice(clients), path, key, body, timeout_s)

    return (await insist(ask)).content
