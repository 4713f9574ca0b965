"""Text as Postgres stores it; what models and tools send may hold what it refuses."""

from typing import Any


def clean(text: str) -> str:
    """Text that Postgres stores: NUL and lone surrogates, as models and tools may send them, become U+FFFD."""
    if text.isascii():
        return text.replace("\x00", "\ufffd")
    return text.replace("\x00", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def clean_json(value: Any, max_depth: int = 64) -> Any:
    """`value` with every string in it, keys too, as `clean` leaves it. Raises ValueError where it nests deeper."""
    if max_depth < 0:
        raise ValueError("it nests too deep")
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list):
        return [clean_json(item, max_depth - 1) for item in value]
    if isinstance(value, dict):
        return {clean(key): clean_json(item, max_depth - 1) for key, item in value.items()}
    return value
