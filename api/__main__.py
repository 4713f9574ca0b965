"""`python -m api`: the HTTP API, until SIGTERM or SIGINT."""

import os
import socket
import sys

from api.app import create_app
from api.server import Server
from common.config import ConfigError, load_settings
from common.garbage import calm_garbage_collector
from common.observability.logging import configure_logging
from common.observability.tracing import close_tracing, open_tracing


def main() -> int:
    """The exit status: 0 after an orderly stop, 2 for a wrong setting, 3 for a port that is taken.

    Without Postgres or Redis it starts, and `/health/ready` tells how things stand.

    THROUGHLINE_FD names a listening socket to serve on that is open already, in place of HOST and PORT.
    """
    try:
        settings = load_settings()
        configure_logging(settings)
        open_tracing(settings, "throughline-api")
        server = Server(create_app(settings), host=settings.host, port=settings.port)
        calm_garbage_collector()
        server.run(_inherited_sockets())
        close_tracing()
    except ConfigError as error:
        print(f"api: {error}", file=sys.stderr)
        return 2
    return 0


def _inherited_sockets() -> list[socket.socket] | None:
    fd = os.environ.get("THROUGHLINE_FD", "")
    if not fd:
        return None
    try:
        return [socket.socket(fileno=int(fd))]
    except (ValueError, OSError) as error:
        raise ConfigError(f"THROUGHLINE_FD: {fd!r} is no socket of this process: {error}") from None


if __name__ == "__main__":
    sys.exit(main())
