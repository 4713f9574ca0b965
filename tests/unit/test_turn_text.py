"""Text that arrives in pieces."""

import pytest

from worker.providers.base import ProviderError
from worker.run.patience import Text  # noqa: F401
