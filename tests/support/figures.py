"""Reading what the process has counted: all tests together, so only what is added says something."""

from collections.abc import Callable

from common.observability.metrics import PROCESS


def counted(name: str, **labels: str) -> float:
    """The figure as it is now; 0 for one that nobody has counted yet."""
    return PROCESS.get_sample_value(name, labels) or 0.0


def added(name: str, **labels: str) -> Callable[[], float]:
    """Says what has been added to the figure since this call."""
    before = counted(name, **labels)
    return lambda: counted(name, **labels) - before
