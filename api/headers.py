"""What browsers are told about every answer. The page and the reference have policies of their own."""

from base64 import b64encode
from hashlib import sha256

PROTECTION = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Nothing is taken for another type, no URL (which may hold a ticket) is told on, no other site embeds anything."""

ANSWER_HEADERS = {
    **PROTECTION,
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}
"""For data: whatever it says, a browser that is made to show it neither runs, loads, frames nor keeps anything."""


def policy_of_style(style: str) -> dict[str, str]:
    """For a page that has this one style inline and nothing else."""
    digest = b64encode(sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    return {"Content-Security-Policy": f"{policy}; frame-ancestors 'none'", "Cache-Control": "no-cache"}
