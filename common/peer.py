"""Who is at the other end of a connection: this machine, somebody with the token, or anybody."""

import hmac
from collections.abc import Container
from ipaddress import ip_address

_FORWARDING = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip")


def is_loopback(address: str) -> bool:
    """Whether the address is one of this machine alone."""
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False


def is_this_machine(address: str | None, headers: Container[str]) -> bool:
    """Whether a request comes from this machine itself: what a proxy or a tunnel forwards may come from anybody.

    `headers` are in lower case, or do not mind the case.
    """
    return address is not None and is_loopback(address) and not any(name in headers for name in _FORWARDING)


def may_scrape(token: str, authorization: str | None, address: str | None, headers: Container[str]) -> bool:
    """Whether somebody may read the metrics: with the bearer `token`; where there is none, this machine itself."""
    if not token:
        return is_this_machine(address, headers)
    scheme, _, sent = (authorization or "").partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(sent.strip().encode(), token.encode())
