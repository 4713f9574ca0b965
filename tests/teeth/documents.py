"""The guards of documents that are edited together."""

from tests.teeth.breakage import Breakage, Change

_ROOMS = "tests/integration/test_collaboration.py"
_ACCESS = "tests/integration/test_collaboration_access.py"
_ROOM_ALONE = "tests/unit/test_room.py"
_LIVE = "tests/unit/test_document_live.py"
_SCAN = "tests/unit/test_document_scan.py"
_PRESENCE = "tests/unit/test_presence.py"
_PARTS = "tests/unit/test_collaboration_parts.py"
_TOOLS = "tests/e2e/test_document_tools.py"

_ROOM = "api/collaboration/room.py"
_LIVE_DOCUMENT = "common/documents/live.py"

DOCUMENT_BREAKAGES = (
    Breakage(
        "document-commit-first",
        "nothing is broadcast before its commit",
        "it is told first",
        (
            Change(
                _ROOM,
                "        last = await self.storage.append(updates, self._new_clients(pending))\n",
                "        for member, taken in pending:\n"
                "            self.lobby.cast(messages.tell_change(taken.data), but=member)\n"
                "        last = await self.storage.append(updates, self._new_clients(pending))\n",
            ),
        ),
        (_ROOMS,),
    ),
    Breakage(
        "document-answer-committed",
        "who asks for what it lacks is given what is committed",
        "what is pending is not committed before",
        (
            Change(
                _ROOM,
                "            case Asked(member, state):\n                await self._commit_pending()\n",
                "            case Asked(member, state):\n",
            ),
        ),
        (_ROOM_ALONE,),
    ),
    Breakage(
        "document-broken",
        "what breaks a document costs only its sender",
        "the document is kept as it is",
        (Change(_ROOM, "            await self._commit_pending()\n            await self._start_over()\n", ""),),
        (_ROOM_ALONE,),
    ),
    Breakage(
        "document-order",
        "what others have committed is taken in the log's order",
        "whatever comes is taken",
        (
            Change(
                "api/collaboration/sequence.py",
                "        while self.seq + 1 in self._ahead:\n            self.seq += 1\n",
                "        for seq in list(self._ahead):\n            self.seq = seq\n",
            ),
        ),
        (_PARTS, _ROOMS),
    ),
    Breakage(
        "document-audit",
        "an update of which nobody was told is found by a look at the numbers",
        "nobody looks",
        (
            Change(
                "api/collaboration/rooms.py",
                "            if position.head_seq > room.seq:\n",
                "            if position.head_seq < room.seq:\n",
            ),
        ),
        (_ROOMS,),
    ),
    Breakage(
        "document-complete",
        "an update that needs what is not here is not given to the library",
        "it is",
        (Change(_LIVE_DOCUMENT, "        self._check_complete(claimed)\n", ""),),
        (_LIVE,),
    ),
    Breakage(
        "document-characters",
        "no edit cuts a character in two",
        "the check is gone",
        (Change(_LIVE_DOCUMENT, "        self._check_characters(claimed)\n", ""),),
        (_LIVE,),
    ),
    Breakage(
        "document-roots",
        "the text is the one shared type",
        "any root is taken",
        (Change("common/documents/update_scan.py", "        if root != self._kind.root:\n", "        if not root:\n"),),
        (_SCAN,),
    ),
    Breakage(
        "document-viewer",
        "what a viewer writes is dropped",
        "it is taken",
        (
            Change(
                "api/routes/collaboration.py",
                "    if not member.can_write:\n        if update != EMPTY:\n            member.refuse_change()\n"
                "        return\n",
                "",
            ),
        ),
        (_ACCESS,),
    ),
    Breakage(
        "document-workspace",
        "a room that is open is closed to other workspaces",
        "whoever comes is let in",
        (
            Change(
                "api/collaboration/rooms.py",
                "        elif room.storage.workspace_id != workspace_id:\n",
                "        elif not workspace_id:\n",
            ),
        ),
        (_ACCESS,),
    ),
    Breakage(
        "presence-owner",
        "nobody speaks for somebody else",
        "a higher clock is enough",
        (
            Change(
                "api/collaboration/presence.py",
                "            if not self._may_speak(known, owner, user, entry):\n                continue\n",
                "",
            ),
        ),
        (_PRESENCE,),
    ),
    Breakage(
        "snapshot-checked",
        "a snapshot says what its updates say",
        "what waits in it for something is lost without a word",
        (
            Change(
                "common/documents/replica.py",
                "        if copy.text != whole.text or read_state(copy.state) != read_state(whole.state):\n",
                "        if not copy.text and whole.text:\n",
            ),
        ),
        (_LIVE,),
    ),
    Breakage(
        "tool-with-its-result",
        "an edit of an agent whose commit's reply was lost is recognised",
        "it is made again",
        (
            Change(
                "worker/run/journal.py",
                "            if await select_call_is_finished(connection, call.id):  # the commit's reply was lost\n",
                "            if False and await select_call_is_finished(connection, call.id):\n",
            ),
        ),
        (_TOOLS,),
    ),
)
