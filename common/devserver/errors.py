"""What goes wrong for the person at the terminal."""


class DevServerError(Exception):
    """The command cannot go on; the message says what to do. Shown without a traceback."""
