"""One connection in a room."""

import time

from api.auth import Principal, WorkspaceRole
from api.collaboration import messages
from api.collaboration.outbox import Outbox

MAX_ASKED = 3
"""How often in a row a member is asked for what its updates need."""

_QUESTIONS = 20.0
_QUESTIONS_PER_S = 2.0


class Member:
    """Somebody who has the document open. A viewer reads along, and is there, but changes nothing."""

    def __init__(self, principal: Principal, outbox: Outbox) -> None:
        self.principal = principal
        self.outbox = outbox
        self.asked = 0
        self._refused = False
        self._questions = _QUESTIONS
        self._asked_at = time.monotonic()

    @property
    def can_write(self) -> bool:
        """Whether the member may change the document."""
        return self.principal.role is not WorkspaceRole.VIEWER

    def may_ask(self) -> bool:
        """Whether the member may ask for what it lacks once more: the answer is the whole document, if it wants that.

        A client asks once when it connects, and some every few seconds.
        """
        now = time.monotonic()
        self._questions = min(_QUESTIONS, self._questions + (now - self._asked_at) * _QUESTIONS_PER_S)
        self._asked_at = now
        self._questions -= 1
        return self._questions >= 0

    def refuse_change(self) -> None:
        """Tells a viewer, once, that what it writes is not kept."""
        if not self._refused:
            self._refused = True
            self.outbox.put(messages.refuse("You may only read this document."))
