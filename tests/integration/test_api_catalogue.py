"""What may be chosen: the union of what the newest workers offer."""

import asyncpg
import httpx

from common.model.run_state import Effect
from common.store.catalogue import Offers, ProviderOffer, ToolOffer, select_offers, upsert_offers
from common.store.database import Pool


async def test_models_and_tools_are_those_of_the_workers(client: httpx.AsyncClient) -> None:
    """Every provider with its models and what it lacks, every tool with its schema and effect."""
    models = (await client.get("/v1/models")).json()
    tools = (await client.get("/v1/tools")).json()

    assert models["nextCursor"] is None
    assert models["data"][0] == {
        "name": "echo",
        "configured": True,
        "missing": None,
        "models": ["echo"],
        "default": True,
    }
    assert models["data"][2]["missing"] == "ANTHROPIC_API_KEY"
    assert tools["data"][0] == {
        "name": "current_time",
        "description": "Tells the time.",
        "parameters": {},
        "effect": "read",
    }


async def test_offers_of_all_workers_are_united(pool: Pool) -> None:
    """A provider is configured when one worker has its key, and the models of all are listed once."""
    tool = ToolOffer(name="t", description="", parameters={"type": "object"}, effect=Effect.READ)
    lacking = ProviderOffer(name="p", configured=False, missing="P_KEY", models=["a", "b"])
    having = ProviderOffer(name="p", configured=True, models=["b", "c"])
    await upsert_offers(pool, "one", Offers(providers=[lacking], tools=[tool]))
    await upsert_offers(pool, "two", Offers(providers=[having]))

    offers = await select_offers(pool)

    assert offers.providers == [ProviderOffer(name="p", configured=True, missing=None, models=["a", "b", "c"])]
    assert offers.tools == [tool]


async def test_offers_of_a_worker_replace_its_own(pool: Pool) -> None:
    """A worker that starts again no longer offers what it offered before."""
    await upsert_offers(pool, "one", Offers(providers=[ProviderOffer(name="p", configured=True, models=[])]))
    await upsert_offers(pool, "one", Offers())

    assert (await select_offers(pool)).is_empty


async def test_offers_of_workers_long_gone_do_not_count(pool: Pool, database_url: str) -> None:
    """Those seen a minute before the newest are of another deployment; the newest count however old they are."""
    old, new = (ProviderOffer(name=name, configured=True, models=[]) for name in ("old", "new"))
    await upsert_offers(pool, "one", Offers(providers=[old]))
    await upsert_offers(pool, "two", Offers(providers=[new]))
    owner = await asyncpg.connect(database_url)
    await owner.execute("update catalogue set seen_at = seen_at - interval '1 day'")
    await owner.execute("update catalogue set seen_at = seen_at - interval '61 seconds' where worker = 'one'")
    await owner.close()

    assert (await select_offers(pool)).providers == [new]
