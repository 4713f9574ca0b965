"""Redis or Valkey: one for the event log and the signals, and one for the queue, which may be the same."""

from collections.abc import Mapping
from typing import Any

from common.config import ConfigError, Settings
from common.doctor.findings import Finding, ok, problem, warning
from common.doctor.postgres import place
from common.redis import REDIS_DOWN, Tls, open_redis, tls_of

_FULL = 0.8


async def check_redis(settings: Settings) -> list[Finding]:
    """All that can be said about them; of one that cannot be reached, that, within seconds."""
    tls = tls_of(settings)
    found = await _check(settings.redis_url, tls, "redis", "REDIS_URL")
    if settings.queue_redis_url != settings.redis_url:
        found += await _check(settings.queue_redis_url, tls, "queue redis", "QUEUE_REDIS_URL", is_queue=True)
    return found


async def _check(url: str, tls: Tls, check: str, variable: str, *, is_queue: bool = False) -> list[Finding]:
    try:
        redis = open_redis(url, tls)
    except (ConfigError, ValueError):
        # Its words have the URL, of which nobody can say then which part is the password.
        advice = (
            "Write it as redis://:password@host:6379/0, with %23 for a # in the password; REDIS_TLS_CA has to exist."
        )
        return [problem(check, f"{variable} cannot be read", advice)]
    try:
        return judge_redis(await redis.info(), check, place(url), is_queue=is_queue)
    except REDIS_DOWN as error:
        says = f"no answer from {place(url)}: {type(error).__name__}: {_words(error)}"
        return [problem(check, says, f"Start it, or mend {variable}; messages are taken meanwhile, and told later.")]
    finally:
        await redis.aclose()


def judge_redis(info: Mapping[str, Any], check: str, where: str, *, is_queue: bool = False) -> list[Finding]:
    """What its INFO says; a host that hides a part of it is not blamed for that."""
    found = []
    kind, version, least = _version(info)
    if version and int(version.split(".")[0]) < least:
        found.append(problem(check, f"{kind} {version} at {where}", "Use Redis 7 or Valkey 8, or newer."))
    if info.get("role", "master") != "master":
        found.append(problem(check, f"{where} is a replica", "Name the primary."))
    if is_queue and info.get("cluster_enabled"):
        found.append(problem(check, f"{where} is a cluster", "Name a server of its own: arq cannot use a cluster."))
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        says = f"maxmemory-policy is {policy}: logs of live runs may be thrown away"
        found.append(warning(check, says, "Set maxmemory-policy noeviction."))
    used, limit = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    if limit and used > _FULL * limit:
        says = f"{used / limit:.0%} of maxmemory are used"
        found.append(warning(check, says, "Give it more memory, or keep streams for a shorter time (STREAM_TTL_S)."))
    if not info.get("aof_enabled", 1):
        says = "no append-only file: a restart forgets the streams of live runs, which then begin anew"
        found.append(warning(check, says, "Set appendonly yes."))
    return found or [ok(check, f"{kind} {version} at {where}, {used / 2**20:.0f} MiB used")]


def _version(info: Mapping[str, Any]) -> tuple[str, str, int]:
    if "valkey_version" in info:
        return "Valkey", str(info["valkey_version"]), 8
    return "Redis", str(info.get("redis_version", "")), 7


def _words(error: BaseException) -> str:
    return str(error).partition("\n")[0]
