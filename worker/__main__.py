"""`python -m worker`: one worker process."""

import os
import sys
from typing import NoReturn

import uvloop

from common.config import ConfigError, Settings, load_settings
from common.observability.logging import configure_logging
from common.observability.tracing import close_tracing, open_tracing
from worker.main import serve


async def _serve_and_leave(settings: Settings) -> NoReturn:
    """Ends the process at once when the worker is done: its runs are handed back, its connections closed. A tool that
    sits in a thread, or does not let itself be cancelled, would keep it for as long as it likes."""
    await serve(settings)
    close_tracing()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def main() -> int:
    """The exit code: 0 after draining, 2 for a configuration that cannot work."""
    try:
        settings = load_settings()
        configure_logging(settings)
        open_tracing(settings, "throughline-worker")
        uvloop.run(_serve_and_leave(settings))
    except ConfigError as error:
        print(f"throughline worker: {error}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
