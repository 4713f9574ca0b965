"""One connection in a room."""

from dataclasses import dataclass, field
from typing import ClassVar

from api.auth import Principal, WorkspaceRole
from api.collaboration import messages
from api.collaboration.outbox import Outbox


@dataclass(eq=False, slots=True)
class Member:
    """Somebody who has the document open. A viewer reads along, and is there, but changes nothing."""

    principal: Principal
    outbox: Outbox
    asked: int = 0
    """How often in a row the member was asked for what its updates need."""
    _refused: bool = field(default=False, init=False)

    MAX_ASKED: ClassVar[int] = 3

    @property
    def can_write(self) -> bool:
        """Whether the member may change the document."""
        return self.principal.role is not WorkspaceRole.VIEWER

    def refuse_change(self) -> None:
        """Tells a viewer, once, that what it writes is not kept."""
        if not self._refused:
            self._refused = True
            self.outbox.put(messages.refuse("You may only read this document."))
