"""What all runs of a worker share."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from redis.asyncio import Redis

from common.config import Settings
from common.eventlog.log import EventLog
from common.limits import LimitBook, TokenBudget
from common.queue import Bell
from common.store.database import Pool
from worker.providers.base import Provider
from worker.run.last_chances import LastChances
from worker.run.lease import LeaseKeeper
from worker.run.retry_budget import RetryBudget
from worker.tools.base import Tool


@dataclass(frozen=True, kw_only=True, slots=True)
class Resources:
    """Opened once per process. `owner` names this worker in the leases; it is never used again.

    `retry_budgets` has one for each of `providers`; `models` are those that each of them lists.
    """

    settings: Settings
    owner: str
    pool: Pool
    redis: Redis
    log: EventLog
    bell: Bell
    keeper: LeaseKeeper
    providers: Mapping[str, Provider]
    retry_budgets: Mapping[str, RetryBudget]
    tools: Mapping[str, Tool]
    limits: LimitBook
    models: Mapping[str, Collection[str]] = field(default_factory=dict)
    budget: TokenBudget = field(default_factory=TokenBudget)
    last_chances: LastChances = field(default_factory=LastChances)
