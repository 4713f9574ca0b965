"""The machine on which the doctor runs, which is the API's in most installations."""

import importlib.util
import resource
from pathlib import Path

from common.config import Settings
from common.doctor.findings import Finding, ok, problem, warning

_FEW_FILES = 4096
_OWN_FILES = 100
"""What a process has open beside its streams: connections to the stores, libraries."""


def check_open_files(limit: int | None = None) -> Finding:
    """Each stream and each socket is an open file; `limit` stands in for this process's own."""
    check = "open files"
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0] if limit is None else limit
    if soft == resource.RLIM_INFINITY:
        return ok(check, "no limit")
    says = f"{soft}: a process started from here holds about {max(0, soft - _OWN_FILES)} streams"
    if soft < _FEW_FILES:
        return warning(check, says, "Raise it for the API (`ulimit -n 65536`, LimitNOFILE= of systemd).")
    return ok(check, says)


def check_page(settings: Settings, dist: Path | None = None) -> Finding:
    """Whether the web page is there to be served; `dist` stands in for its folder."""
    check = "web page"
    if not settings.web_page and settings.throughline_env == "production":
        return ok(check, "not served (WEB_PAGE)")
    folder = dist or _dist()
    if folder is None or not (folder / "index.html").is_file():
        return problem(check, "it is to be served, and is not built", "Run `throughline page` (or `make page`).")
    return ok(check, "built")


def _dist() -> Path | None:
    spec = importlib.util.find_spec("api")
    places = list(spec.submodule_search_locations or []) if spec else []
    return Path(places[0]) / "web" / "dist" if places else None
