"""The protocols that a run's events are spoken in: one name, one fold."""

from collections.abc import Callable
from functools import partial

from api.protocols.ai_sdk import AiSdk
from api.protocols.fold import Fold, Place
from api.protocols.native import Native
from api.protocols.responses import Responses

PROTOCOLS: dict[str, Callable[[Place], Fold]] = {
    "native": Native,
    "responses": Responses,
    "ai-sdk": AiSdk,
    "ai-sdk-7": partial(AiSdk, resets=True),
}
