"""`python -m worker`: one worker process."""

import sys

import uvloop

from common.config import ConfigError, load_settings
from common.observability.logging import configure_logging
from worker.main import serve


def main() -> int:
    """The exit code: 0 after draining, 2 for a configuration that cannot work."""
    try:
        settings = load_settings()
        configure_logging(settings)
        uvloop.run(serve(settings))
    except ConfigError as error:
        print(f"throughline worker: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
