"""What an examination finds."""

from collections.abc import Sequence
from typing import Literal

import msgspec

Status = Literal["ok", "warning", "problem"]


class Finding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`says` what is so, `advice` what to do about it in a sentence. Neither ever holds a key or a password."""

    check: str
    status: Status
    says: str
    advice: str = ""


def ok(check: str, says: str) -> Finding:
    """As it should be."""
    return Finding(check=check, status="ok", says=says)


def warning(check: str, says: str, advice: str) -> Finding:
    """It works, but not as well as it could, or not for everybody."""
    return Finding(check=check, status="warning", says=says, advice=advice)


def problem(check: str, says: str, advice: str) -> Finding:
    """It does not work."""
    return Finding(check=check, status="problem", says=says, advice=advice)


def is_well(findings: Sequence[Finding]) -> bool:
    """Whether there is no problem."""
    return all(finding.status != "problem" for finding in findings)


def as_text(findings: Sequence[Finding]) -> str:
    """For people: a line for each, and one for what to do."""
    width = max(len(finding.check) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{finding.status:<8} {finding.check:<{width}}  {finding.says}")
        if finding.advice:
            lines.append(f"{'':<8} {'':<{width}}  -> {finding.advice}")
    lines.append(", ".join(_count(findings, status) for status in ("problem", "warning")))
    return "\n".join(lines)


def as_json(findings: Sequence[Finding]) -> str:
    """For programs."""
    return msgspec.json.format(msgspec.json.encode({"ok": is_well(findings), "findings": findings})).decode()


def _count(findings: Sequence[Finding], status: str) -> str:
    number = sum(finding.status == status for finding in findings)
    return f"{number} {status}{'' if number == 1 else 's'}"
