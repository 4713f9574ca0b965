"""The `throughline` command."""

import argparse
import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from uuid import UUID

from common.config import ConfigError, load_settings, redact_url, require
from common.devserver.dev import DevOptions, dev
from common.devserver.dotenv import with_dotenv
from common.devserver.errors import DevServerError
from common.devserver.examined import examined_environment
from common.devserver.health import api_health, worker_health
from common.devserver.housekeep import housekeep
from common.devserver.limits import change_limits, read_limits, tell_limits
from common.devserver.mint_token import DEVELOPER, DEVELOPMENT_WORKSPACE, ROLES, mint_token
from common.devserver.page import build_page, check_page
from common.devserver.procfile import find_procfile
from common.devserver.secret import signing_secret
from common.doctor.examination import examine
from common.doctor.findings import as_json, as_text, is_well
from common.model.limits import Limits
from common.store.database import DATABASE_DOWN
from common.store.migrate import MigrationError, migrate
from common.store.schema import find_beyond


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status. What the person can mend is one line on stderr."""
    try:
        environment = with_dotenv(os.environ, Path(".env"))
        options = _parser(environment).parse_args(arguments)
        return _COMMANDS[options.command](options, environment)
    except (DevServerError, ConfigError, MigrationError) as error:
        print(f"throughline: {error}", file=sys.stderr)
        return 1


def _parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="throughline", description="A multi-tenant agent server.")
    commands = parser.add_subparsers(dest="command", required=True)
    data = Path(environment.get("THROUGHLINE_DATA") or ".throughline")

    command = commands.add_parser("dev", help="run the whole system here, with servers of its own")
    command.add_argument("--port", type=_port, default=environment.get("PORT") or "8000", help="0: any free one")
    command.add_argument("--data", type=Path, default=data, help="the folder that keeps all data")
    command.add_argument("--workers", type=_count, default=1, help="how many worker processes")
    command.add_argument("--follow-parent", action="store_true", help="stop when the calling process is gone")
    command.add_argument("--procfile", type=Path, help="the commands to run, instead of the project's own")

    commands.add_parser("migrate", help="bring the database to this version's schema")

    command = commands.add_parser("doctor", help="look for what is wrong, and say what to do about it")
    command.add_argument("--ask", action="store_true", help="send one request to each model provider and token issuer")
    command.add_argument("--json", action="store_true", help="print the findings for programs")
    command.set_defaults(data=data)

    command = commands.add_parser("housekeep", help="remove what retention lets go, now instead of within minutes")
    command.set_defaults(data=data)

    command = commands.add_parser("health", help="tell by the exit status whether the process on this host is well")
    command.add_argument("process", choices=("api", "worker"))

    command = commands.add_parser("limits", help="show or change the limits of one workspace")
    command.add_argument("workspace", type=_uuid, help="its UUID")
    command.add_argument("change", nargs="?", choices=("set", "reset"), help="reset: the settings' hold again")
    command.add_argument("limits", nargs="*", metavar="limit[=value]", help="such as queued_runs=100; 0: none")
    command.set_defaults(data=data)

    command = commands.add_parser("page", help="build the web page from its sources")
    command.add_argument("--check", action="store_true", help="check its types instead")

    command = commands.add_parser("token", help="print a development token")
    command.add_argument(
        "--workspace", type=_uuid, default=DEVELOPMENT_WORKSPACE, help="the workspace's UUID (default: %(default)s)"
    )
    command.add_argument("--user", default=DEVELOPER, help="the token's `sub` (default: %(default)s)")
    command.add_argument("--role", choices=ROLES, default="owner", help="in the workspace (default: %(default)s)")
    command.add_argument("--hours", type=_hours, default=24.0, help="how long it is good for (default: %(default)g)")
    command.add_argument("--superuser", action="store_true", help="for the operators' page, too")
    command.set_defaults(data=data)
    return parser


def _dev(options: argparse.Namespace, environment: Mapping[str, str]) -> int:
    procfile = options.procfile or find_procfile()
    wanted = DevOptions(options.port, options.data, options.workers, procfile, options.follow_parent)
    asyncio.run(dev(wanted, environment))
    return 0


def _migrate(_: argparse.Namespace, environment: Mapping[str, str]) -> int:
    settings = load_settings(environment)
    require(settings, "migration_database_url")
    try:
        applied, beyond = asyncio.run(_bring_up(settings.migration_database_url))
    except DATABASE_DOWN as error:
        url = redact_url(settings.migration_database_url)
        raise DevServerError(f"cannot reach the database {url}: {error}") from error
    for name in applied:
        print(f"applied {name}")
    if beyond:
        print(f"the database is of a newer version, which has {', '.join(beyond)}; nothing was taken back")
    elif not applied:
        print("the database is up to date")
    return 0


def _doctor(options: argparse.Namespace, environment: Mapping[str, str]) -> int:
    findings = asyncio.run(examine(examined_environment(environment, options.data), ask=options.ask))
    print(as_json(findings) if options.json else as_text(findings))
    return 0 if is_well(findings) else 1


def _housekeep(options: argparse.Namespace, environment: Mapping[str, str]) -> int:
    removed = asyncio.run(housekeep(load_settings(examined_environment(environment, options.data))))
    print(", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in removed.items()))
    return 0


async def _bring_up(url: str) -> tuple[list[str], list[str]]:
    return await migrate(url), await find_beyond(url)


def _health(options: argparse.Namespace, environment: Mapping[str, str]) -> int:
    check = api_health if options.process == "api" else worker_health
    return 0 if asyncio.run(check(load_settings(environment))) else 1


def _limits(options: argparse.Namespace, environment: Mapping[str, str]) -> int:
    settings = load_settings(examined_environment(environment, options.data))
    require(settings, "database_url")
    values, names = _limit_values(options) if options.change == "set" else ({}, _limit_names(options))
    try:
        if options.change is not None:
            asyncio.run(change_limits(settings, options.workspace, values, names))
        own = asyncio.run(read_limits(settings, options.workspace))
    except DATABASE_DOWN as error:
        raise DevServerError(f"cannot reach the database {redact_url(settings.database_url)}: {error}") from error
    print(tell_limits(settings, own))
    return 0


def _limit_values(options: argparse.Namespace) -> tuple[dict[str, int], list[str]]:
    values = {}
    for text in options.limits:
        name, _, value = text.partition("=")
        if not (value.isascii() and value.isdecimal() and len(value) <= 15):
            raise DevServerError(f"{text!r}: write a limit as name=value, a whole number of at least 0")
        values[_limit_name(name)] = int(value)
    if not values:
        raise DevServerError("name what to set, such as queued_runs=100")
    return values, []


def _limit_names(options: argparse.Namespace) -> list[str]:
    names = [_limit_name(name) for name in options.limits]
    if options.change == "reset" and not names:
        raise DevServerError("name what to reset, such as queued_runs")
    return names


def _limit_name(name: str) -> str:
    if name not in Limits.__struct_fields__:
        raise DevServerError(f"there is no limit {name!r}; there are {', '.join(Limits.__struct_fields__)}")
    return name


def _page(options: argparse.Namespace, _: Mapping[str, str]) -> int:
    if options.check:
        check_page()
    else:
        build_page()
    return 0


def _token(options: argparse.Namespace, environment: Mapping[str, str]) -> int:
    settings = load_settings(environment)
    if options.hours * 3600 > settings.jwt_max_lifetime_s:
        raise DevServerError(f"a token is good for at most {settings.jwt_max_lifetime_s / 3600:g} hours")
    token = mint_token(
        signing_secret(environment, options.data),
        workspace=options.workspace,
        user=options.user,
        role=options.role,
        lifetime_s=options.hours * 3600,
        audience=settings.jwt_audience,
        issuer=settings.jwt_issuer,
        superuser=options.superuser,
    )
    print(token)
    return 0


def _port(text: str) -> int:
    if not (text.isdecimal() and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"a port is a number from 0 to 65535, not {text!r}")
    return int(text)


def _count(text: str) -> int:
    if not (text.isdecimal() and int(text) >= 1):
        raise argparse.ArgumentTypeError(f"a whole number of at least 1, not {text!r}")
    return int(text)


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"a UUID, not {text!r}") from None


def _hours(text: str) -> float:
    try:
        hours = float(text)
    except ValueError:
        hours = 0
    if not 0 < hours < float("inf"):
        raise argparse.ArgumentTypeError(f"a number above 0, not {text!r}")
    return hours


_COMMANDS = {
    "dev": _dev,
    "migrate": _migrate,
    "doctor": _doctor,
    "housekeep": _housekeep,
    "health": _health,
    "limits": _limits,
    "page": _page,
    "token": _token,
}
