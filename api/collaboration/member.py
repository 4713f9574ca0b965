"""One connection in a room."""

import time

from api.auth import Principal, WorkspaceRole
from api.collaboration import messages
from api.collaboration.outbox import Outbox

_MAX_ASKED = 3
"""How often in a row a member is asked for what its updates need, and has nothing new to say."""

_QUESTIONS = 5.0
_QUESTIONS_PER_S = 1.0


class Member:
    """Somebody who has the document open. A viewer reads along, and is there, but changes nothing."""

    def __init__(self, principal: Principal, outbox: Outbox) -> None:
        self.principal = principal
        self.outbox = outbox
        self.messages = 0
        """How many have come."""
        self.is_introduced = False
        """Whether the member was told who is there."""
        self._asked = 0
        self._is_asked = False
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

    def ask(self, state: bytes) -> bool:
        """Asks for what somebody in `state` lacks, once until it is answered; False when that has led to nothing.

        Until the question has arrived, what a client types may build on what it has typed without a connection.
        """
        if not self._is_asked:
            self._is_asked = True
            self._asked += 1
            self.outbox.put(messages.ask_changes(state))
        return self._asked <= _MAX_ASKED

    def has_answered(self) -> None:
        """The member has told all that it was asked for."""
        self._is_asked = False

    def has_told_news(self) -> None:
        """The member has changed something."""
        self._asked = 0

    def refuse_change(self) -> None:
        """Tells a viewer, once, that what it writes is not kept."""
        if not self._refused:
            self._refused = True
            self.outbox.put(messages.refuse("You may only read this document."))
