"""`python -m bench [--quick]`: prints the table of docs/performance.md and writes bench/results.json."""

import argparse
import asyncio
import sys
from pathlib import Path

import msgspec

from bench.scenarios import FULL, QUICK, Row, run_all

_RESULTS = Path(__file__).with_name("results.json")


def main() -> None:
    """Ends with status 0 however the figures are: it measures, it does not judge."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round of about a minute, not the median of three")
    sizes = QUICK if parser.parse_args().quick else FULL
    rows = asyncio.run(run_all(sizes, lambda line: print(line, file=sys.stderr, flush=True)))
    results = {"ok": all(row.holds for row in rows), "rows": rows}
    _RESULTS.write_bytes(msgspec.json.format(msgspec.json.encode(results)) + b"\n")
    print(_table(rows))


def _table(rows: list[Row]) -> str:
    head = ("what", "value", "unit", "target", "holds", "baseline")
    lines = [
        (row.name, _figure(row.value), row.unit, row.target, "yes" if row.holds else "NO", _figure(row.baseline))
        for row in rows
    ]
    widths = [max(len(line[column]) for line in (head, *lines)) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in (head, tuple("-" * width for width in widths), *lines)
    )


def _figure(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


if __name__ == "__main__":
    main()
