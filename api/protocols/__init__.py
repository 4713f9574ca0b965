"""The protocols that a run's events are spoken in: one name, one fold."""

from collections.abc import Callable

from api.protocols.fold import Fold, Place
from api.protocols.native import Native

PROTOCOLS: dict[str, Callable[[Place], Fold]] = {
    "native": Native,
}
