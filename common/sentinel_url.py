"""URLs of a master that sentinels know: `redis+sentinel://[user:password@]host[:port],host…/master[/db]`.

With `rediss+sentinel://` the servers and the sentinels speak TLS. `?sentinel_password=` (and `sentinel_username=`) is
for the sentinels themselves.
"""

import re
from typing import Any, NamedTuple
from urllib.parse import parse_qs, quote, unquote

_URL = re.compile(
    r"(?P<scheme>rediss?)\+sentinel://(?:(?P<user>[^:@/]*)(?::(?P<password>[^@/]*))?@)?"
    r"(?P<hosts>[^/?@]+)/(?P<master>[^/?]+)(?:/(?P<db>\d+))?(?:\?(?P<query>.*))?"
)
_HOST = re.compile(r"(?P<name>\[[0-9a-fA-F:.]+\]|[^:,\[\]]+)(?::(?P<port>\d{1,5}))?")
_PORT = 26379


class SentinelUrl(NamedTuple):
    """`sentinels` are URLs; `login` is what a connection to the master is opened with."""

    sentinels: list[str]
    master: str
    login: dict[str, Any]
    tls: bool


def is_sentinel_url(url: str) -> bool:
    """Whether it names sentinels, not a server."""
    return url.startswith(("redis+sentinel:", "rediss+sentinel:"))


def parse_sentinel_url(url: str) -> SentinelUrl:
    """Raises ValueError for a malformed one."""
    parts = _URL.fullmatch(url)
    hosts = [_HOST.fullmatch(host) for host in parts["hosts"].split(",")] if parts else []
    if parts is None or not all(hosts):
        raise ValueError("expected redis+sentinel://[user:password@]host:port,host:port/master-name[/db]")
    query = parse_qs(parts["query"] or "")
    if unknown := query.keys() - {"sentinel_username", "sentinel_password"}:
        raise ValueError(f"unknown options: {', '.join(sorted(unknown))}")
    user, password = (quote(query.get(f"sentinel_{name}", [""])[0], safe="") for name in ("username", "password"))
    account = f"{user}:{password}@" if password else ""
    login = {"username": parts["user"], "password": parts["password"]}
    return SentinelUrl(
        sentinels=[f"{parts['scheme']}://{account}{host['name']}:{host['port'] or _PORT}" for host in hosts if host],
        master=unquote(parts["master"]),
        login={name: unquote(value) for name, value in login.items() if value} | {"db": int(parts["db"] or 0)},
        tls=parts["scheme"] == "rediss",
    )
