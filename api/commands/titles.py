"""What a conversation is called whose client has no place for a title."""

_MAX_CHARACTERS = 80


def title_from(text: str) -> str | None:
    """The first line that says something, cut; None when no line does."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return line[:_MAX_CHARACTERS].rstrip() or None
