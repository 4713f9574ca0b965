"""The date and time now, which models do not know."""

from datetime import UTC, datetime
from typing import Annotated
from zoneinfo import ZoneInfo

import msgspec

from common.model.run_state import Effect
from worker.tools.base import ToolError, tool

TimeZone = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


class CurrentTime(msgspec.Struct, rename="camel"):
    """What the model reads: the time with its offset from UTC, and the day in words."""

    time: str
    time_zone: str
    weekday: str


@tool(effect=Effect.READ)
async def current_time(timezone: TimeZone = "UTC") -> CurrentTime:
    """The current date and time in a time zone.

    Args:
        timezone: An IANA time zone, such as Europe/Berlin or America/New_York.
    """
    now = datetime.now(UTC).astimezone(_zone(timezone))
    return CurrentTime(now.isoformat(timespec="seconds"), timezone, now.strftime("%A"))


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        raise ToolError(
            f"There is no time zone {name!r}. Use an IANA name such as Europe/Berlin or America/New_York."
        ) from None
