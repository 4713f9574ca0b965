"""What a room has to do, in the order in which it comes."""

import asyncio
from typing import NamedTuple

from api.collaboration.member import Member
from common.documents.update_scan import Scan


class Joined(NamedTuple):
    """Somebody has come."""

    member: Member


class Asked(NamedTuple):
    """A member asks for what it lacks."""

    member: Member
    state: bytes


class Changed(NamedTuple):
    """A member has changed something, or repeats what may be known."""

    member: Member
    update: bytes
    scan: Scan
    answers: bool


class Told(NamedTuple):
    """Another process has committed an update; empty where it was too large to be told."""

    seq: int
    update: bytes


class Missed(NamedTuple):
    """Something may have been missed: Postgres knows."""


class Rested(NamedTuple):
    """Somebody wants to know what is committed: the number of the log, and the text there."""

    answer: "asyncio.Future[tuple[int, str]]"


Item = Joined | Asked | Changed | Told | Missed | Rested
