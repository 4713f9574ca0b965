"""`python -m bench.plot`: bench/results.json as docs/performance.svg. Needs the extra `plots`."""

from pathlib import Path

import matplotlib as mpl
import msgspec
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from bench.rows import Row, figure_text

_RESULTS = Path(__file__).with_name("results.json")
_PLOT = Path(__file__).parents[1] / "docs" / "performance.svg"
_WIDTH_IN, _ROW_IN = 10.0, 0.32
_HOLDS, _MISSES, _BASELINE = "#2a7f62", "#c0392b", "#555555"


class _Results(msgspec.Struct):
    ok: bool
    rows: list[Row]


def main() -> None:
    """One bar for each row with a target other than 0: how much of what is allowed it takes. Shorter is better."""
    results = msgspec.json.decode(_RESULTS.read_bytes(), type=_Results)
    rows = [(row, share) for row in results.rows if (share := _share(row, row.value)) is not None]
    figure = draw(rows[::-1])
    mpl.rcParams["svg.fonttype"] = "none"
    mpl.rcParams["svg.hashsalt"] = "throughline"
    figure.savefig(_PLOT, metadata={"Date": None})
    print(_PLOT)


def draw(rows: list[tuple[Row, float]]) -> Figure:
    """Bars from the bottom up, on a logarithmic scale; a hollow diamond is the baseline on the same scale."""
    figure = Figure(figsize=(_WIDTH_IN, 1.2 + _ROW_IN * len(rows)), layout="constrained")
    axes = figure.subplots()
    for place, (row, share) in enumerate(rows):
        axes.barh(place, share, color=_HOLDS if row.holds else _MISSES, height=0.6)
        if row.baseline is not None and (base := _share(row, row.baseline)):
            axes.plot(base, place, marker="D", color=_BASELINE, fillstyle="none", linestyle="none")
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_yticks(range(len(rows)), [f"{row.name}: {figure_text(row.value)} {row.unit}" for row, _ in rows])
    axes.xaxis.set_major_formatter(ScalarFormatter())
    figure.supxlabel("how much of its target each takes up (1: all of it); the diamond is the baseline", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _share(row: Row, value: float) -> float | None:
    """Of a limit the share that is used, of a minimum its inverse; None without a target to divide by."""
    way, _, limit = row.target.partition(" ")
    target = float(limit.replace(",", "") or 0)
    if not target or not value:
        return None
    return value / target if way == "<=" else target / value


if __name__ == "__main__":
    main()
