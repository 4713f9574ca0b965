"""`python -m bench [--quick]`: prints the table of docs/performance.md and writes bench/results.json."""

import argparse
import asyncio
import sys
from pathlib import Path

import msgspec

from bench import growth
from bench.documents import scenarios as documents
from bench.operations import scenarios as operations
from bench.rows import Row, Say, figure_text
from bench.scenarios import FULL, QUICK, run_streams

_RESULTS = Path(__file__).with_name("results.json")
_PARTS = ("streams", "operations", "documents")
_ASKED_FOR = "growth"
"""Takes minutes to prepare, and says nothing that a change of the hot path would alter: only with --only."""


def main() -> None:
    """Ends with status 0 however the figures are: it measures, it does not judge."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="one round of a minute or two a part, not the median of three"
    )
    parser.add_argument("--only", choices=(*_PARTS, _ASKED_FOR), help="one part alone")
    asked = parser.parse_args()
    parts = (asked.only,) if asked.only else _PARTS
    rows = asyncio.run(_run(parts, asked.quick, lambda line: print(line, file=sys.stderr, flush=True)))
    results = {"ok": all(row.holds for row in rows), "rows": rows}
    _RESULTS.write_bytes(msgspec.json.format(msgspec.json.encode(results)) + b"\n")
    print(_table(rows))


async def _run(parts: tuple[str, ...], quick: bool, say: Say) -> list[Row]:
    """One part after the other, each with servers of its own."""
    found = []
    if "streams" in parts:
        found.append(await run_streams(QUICK if quick else FULL, say))
    if "operations" in parts:
        found.append(await operations.run_operations(operations.QUICK if quick else operations.FULL, say))
    if "documents" in parts:
        found.append(await documents.run_documents(documents.QUICK if quick else documents.FULL, say))
    if _ASKED_FOR in parts:
        found.append(await growth.run_growth(growth.QUICK if quick else growth.FULL, say))
    faults = sum(part.faults for part in found)
    name = "gaps in streams, failed runs, faults of documents"
    total = Row(name=name, value=faults, unit="", target="0", holds=not faults)
    return [*(row for part in found for row in part.rows), total]


def _table(rows: list[Row]) -> str:
    head = ("what", "value", "unit", "target", "holds", "baseline")
    lines = [
        (
            row.name,
            figure_text(row.value),
            row.unit,
            row.target,
            "yes" if row.holds else "NO",
            figure_text(row.baseline),
        )
        for row in rows
    ]
    widths = [max(len(line[column]) for line in (head, *lines)) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in (head, tuple("-" * width for width in widths), *lines)
    )


if __name__ == "__main__":
    main()
