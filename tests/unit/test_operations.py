"""What docs/operations says of figures is true of those that the processes tell."""

import re
from pathlib import Path

from tests.support.metric_names import own_series

_FOLDER = Path(__file__).resolve().parents[2] / "docs/operations"


def test_page_lists_every_figure_with_its_labels() -> None:
    """The tables and the registries name the same figures, each with the same labels."""
    documented: dict[str, frozenset[str]] = {}
    for cells in re.findall(
        r"^\| (`throughline_[^|]*) \|([^|]*)\|", (_FOLDER / "metrics.md").read_text("utf-8"), re.MULTILINE
    ):
        names, labels = (re.findall(r"`([a-z_]+)`", cell) for cell in cells)
        documented |= dict.fromkeys(names, frozenset(labels))
    told = {
        name: labels
        for name, labels in own_series().items()
        if not name.endswith(("_created", "_bucket", "_count", "_sum"))
    }
    told = {name: labels for name, labels in told.items() if f"{name}_total" not in told}

    assert documented == told
