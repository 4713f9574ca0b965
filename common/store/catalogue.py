"""The catalogue: what workers offer. They write it at start; the API reads it and never imports a tool or an SDK."""

from functools import lru_cache
from typing import Any

import msgspec

from common.model.messages import Wire
from common.model.run_state import Effect
from common.store.database import Connection, Pool


class ProviderOffer(Wire, kw_only=True):
    """A provider. `missing` names the environment variable without which it is not `configured`."""

    name: str
    configured: bool
    missing: str | None = None
    models: list[str]
    default: bool = False


class ToolOffer(Wire, kw_only=True):
    """A tool; `parameters` is the JSON schema of its arguments."""

    name: str
    description: str
    parameters: dict[str, Any]
    effect: Effect


class Offers(Wire, kw_only=True):
    """Everything that may be chosen. Without any provider and tool, no worker has spoken yet."""

    providers: list[ProviderOffer] = msgspec.field(default_factory=list)
    tools: list[ToolOffer] = msgspec.field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        return not self.providers and not self.tools


OFFERS = """
    select offers::text from catalogue
    where seen_at > (select max(seen_at) from catalogue) - interval '60 seconds'
    order by seen_at, worker
"""
"""What the newest workers offer, for `read_offers`."""


async def upsert_offers(connection: "Pool | Connection", worker: str, offers: Offers) -> None:
    """Replaces what `worker` offered before, and forgets workers that have been silent for a day."""
    await connection.execute(
        "delete from catalogue where worker <> $1 and seen_at < clock_timestamp() - interval '1 day'", worker
    )
    await connection.execute(
        """
        insert into catalogue (worker, offers) values ($1, $2)
        on conflict (worker) do update set offers = excluded.offers, seen_at = clock_timestamp()
        """,
        worker,
        offers,
    )


async def update_offers_left(connection: "Pool | Connection", worker: str) -> None:
    """The worker leaves: any that stays, or comes, speaks for itself; until then its offers stand."""
    await connection.execute("update catalogue set seen_at = seen_at - interval '60 seconds' where worker = $1", worker)


async def select_offers(connection: "Pool | Connection") -> Offers:
    """What the newest workers offer together: those seen within a minute of the last one."""
    return read_offers(tuple(row["offers"] for row in await connection.fetch(OFFERS)))


async def select_is_offering(connection: "Pool | Connection", host: str, within_s: float = 60) -> bool:
    """Whether a worker on `host` has spoken within the last `within_s` seconds."""
    return bool(
        await connection.fetchval(
            """
            select exists (select from catalogue where split_part(worker, ':', 1) = $1
                           and seen_at > clock_timestamp() - make_interval(secs => $2))
            """,
            host,
            within_s,
        )
    )


@lru_cache(maxsize=4)
def read_offers(texts: tuple[str, ...]) -> Offers:
    """Workers say the same for hours, and each post asks what they say. Nobody changes what is given here."""
    return _unite([msgspec.json.decode(text, type=Offers) for text in texts])


def _unite(all_offers: list[Offers]) -> Offers:
    """A provider is configured when one worker has its key; the models of all are listed, each once."""
    providers: dict[str, ProviderOffer] = {}
    tools: dict[str, ToolOffer] = {}
    for offers in all_offers:
        for offer in offers.providers:
            known = providers.get(offer.name, offer)
            configured = known.configured or offer.configured
            providers[offer.name] = ProviderOffer(
                name=offer.name,
                configured=configured,
                missing=None if configured else offer.missing,
                models=list(dict.fromkeys(known.models + offer.models)),
                default=known.default or offer.default,
            )
        tools |= {tool.name: tool for tool in offers.tools}
    return Offers(providers=list(providers.values()), tools=list(tools.values()))
