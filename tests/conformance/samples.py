"""The wire samples and how they are read: bytes through the splitter and a provider's fold, without a network."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec

from worker.providers.anthropic import AnthropicFold
from worker.providers.base import ProviderError, ProviderEvent
from worker.providers.connection import Fold
from worker.providers.openai import ResponsesFold
from worker.providers.openai_compatible import ChatFold
from worker.providers.sse import SseSplitter

FOLDER = Path(__file__).parent / "recordings"
SAMPLES = sorted(str(path.relative_to(FOLDER).with_suffix("")) for path in FOLDER.glob("*/*.sse"))
_FOLDS: dict[str, Callable[[], Fold]] = {
    "anthropic": AnthropicFold,
    "responses": ResponsesFold,
    "chat": lambda: ChatFold("sample"),
}


def read_bytes(sample: str) -> bytes:
    """What the provider sent."""
    return (FOLDER / f"{sample}.sse").read_bytes()


def read_expected(sample: str) -> list[Any]:
    """What `described` must say of it."""
    expected: list[Any] = msgspec.json.decode((FOLDER / f"{sample}.json").read_bytes())
    return expected


def make_fold(sample: str) -> Fold:
    """A new fold for the sample's wire."""
    return _FOLDS[sample.partition("/")[0]]()


def fold_chunks(sample: str, chunks: Iterable[bytes], *, clean_end: bool) -> list[Any]:
    """The described events of `chunks`, and last the kind of the error, if they end in one."""
    fold, splitter = make_fold(sample), SseSplitter()
    events: list[ProviderEvent] = []
    try:
        for chunk in chunks:
            for payload in splitter.feed(chunk):
                events.extend(fold.feed(payload))
        if clean_end and not fold.finished:
            events.extend(fold.end())
    except ProviderError as error:
        return [*described(events), ["ProviderError", {"kind": error.kind}]]
    return described(events)


def described(events: Iterable[ProviderEvent]) -> list[Any]:
    """Events as JSON values: the name of each, and its fields."""
    return [[type(event).__name__, msgspec.to_builtins(event)] for event in events]
