"""What the load generator of documents is asked, and what it answers. Times are CLOCK_MONOTONIC."""

import msgspec

from bench.spec import Quantiles


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """Where documents are. Clients are spread over the ports in turn; without a token it is the baseline."""

    name: str
    ports: list[int]
    headers: dict[str, str] = {}

    @property
    def stores(self) -> bool:
        """Whether a client can ask it for what a document says."""
        return bool(self.headers)


class Typing(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """`clients` have a document open, the first `typists` of which type character by character.

    Each types `rate` a second. With a rate of 0 it is as fast as the server: of what a client has typed, at most
    `ahead` characters have not come back through the next client, which is at the other port.
    """

    site: Site
    path: str
    clients: int
    typists: int
    window_s: float
    rate: float = 0.0
    ahead: int = 0
    drain_s: float = 10.0


class Opening(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Opens documents one after the other, each over a connection of its own."""

    site: Site
    paths: list[str]


class Holding(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Opens a connection for each path, tells that on standard output, and closes them once standard input ends."""

    site: Site
    paths: list[str]


Request = Typing | Opening | Holding


class TypingResult(msgspec.Struct, kw_only=True):
    """`latency` is from the sending of a character to its arrival at each client of the other port, `delivered` how
    many have arrived in the window at the last of all clients.

    `text` is what the document says at all clients, in so far as `texts`, the number of different ones, is 1.
    """

    delivered: int
    sent: int
    seconds: float
    latency: Quantiles
    texts: int
    text: str
    missing: int
    failures: list[str]


class OpeningResult(msgspec.Struct, kw_only=True):
    """For each path the milliseconds from the connecting to the whole document, and what that says."""

    milliseconds: list[float]
    texts: list[str]
    failures: list[str]


WARM_UP_S = 1.0
"""Before anything is counted."""
