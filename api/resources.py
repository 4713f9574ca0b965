"""What the process holds open for all requests."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from api.limits.admission import Admission
from common.config import Settings
from common.eventlog.log import EventLog
from common.queue import Bell
from common.store.database import Pool
from common.store.schema import SchemaGate

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from api.relay.hub import Hub


@dataclass(frozen=True, slots=True)
class Resources:
    """Opened and closed by the application's lifespan."""

    settings: Settings
    pool: Pool
    redis: "Redis"
    bell: Bell
    log: EventLog
    hub: "Hub"
    admission: Admission
    schema: SchemaGate = field(default_factory=SchemaGate)
