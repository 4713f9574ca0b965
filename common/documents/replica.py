"""A document in memory: the one place that knows pycrdt and its traps.

Its offsets are UTF-8 bytes, where Yjs counts UTF-16 units and Python code points. What it makes of bytes that
`update_scan` has passed may still be a panic, which is a BaseException: whoever applies a stranger's update distrusts
the replica after any.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from pycrdt import Doc, Subscription, Text, merge_updates

from common.documents.edits import Splice, apply_splices
from common.documents.kinds import Kind
from common.documents.update_scan import read_state

_PARTS_PER_TRANSACTION = 2_000
"""One transaction for each part would take quadratic time; one for all ends in a call of 100 ms for 200,000 of them,
which no other thread can interrupt.
"""


class Replica:
    """What the updates in `parts` make together. `client_id` is who edits here.

    Deleted text is kept (`skip_gc`): a document that forgets it cannot be undone.
    """

    def __init__(self, kind: Kind, parts: Iterable[bytes] = (), client_id: int | None = None) -> None:
        self._doc: Doc[Text] = Doc(client_id=client_id, skip_gc=True)
        self._text: Text = self._doc.get(kind.root, type=Text)
        for some in _chunks(parts):
            with self._doc.transaction():
                for part in some:
                    self._doc.apply_update(part)
        self._changes: list[bytes] = []
        self._subscription: Subscription = self._doc.observe(lambda event: self._changes.append(event.update))

    @property
    def text(self) -> str:
        """The text as it reads now."""
        return str(self._text)

    @property
    def state(self) -> bytes:
        """The state vector: what of each client is here."""
        return self._doc.get_state()

    def update_since(self, state: bytes | None = None) -> bytes:
        """All that somebody in `state` lacks, by default everything. Raises ValueError for no state vector."""
        return self._doc.get_update(state)

    def apply(self, update: bytes) -> bytes:
        """What of `update` was new here, as an update; empty when nothing was. Raises ValueError for no update.

        What waits for something that is missing is not new until that has come.
        """
        self._doc.apply_update(update)
        return self._take_changes()

    def edit(self, splices: Sequence[Splice]) -> bytes:
        """Carries out `splices`, whose places are those in `text`; the update that does so elsewhere, or nothing."""
        text = self.text
        wanted = apply_splices(text, splices)
        at_byte, at = 0, 0
        places = []
        for splice in splices:
            at_byte += len(text[at : splice.at].encode())
            at = splice.at
            places.append(at_byte)
        with self._doc.transaction():
            for splice, place in reversed(list(zip(splices, places, strict=True))):
                del self._text[place : place + len(splice.removed.encode())]
                if splice.inserted:
                    self._text.insert(place, splice.inserted)
        assert self.text == wanted
        return self._take_changes()

    def close(self) -> None:
        """Frees the document: an observer that stays would keep it."""
        self._doc.unobserve(self._subscription)
        with self._doc.transaction():
            self._text.insert(0, "")  # pycrdt frees an observer in the next transaction alone.

    def _take_changes(self) -> bytes:
        changes = self._changes.copy()
        self._changes.clear()
        return changes[0] if len(changes) == 1 else merge(changes)


def merge(updates: Sequence[bytes]) -> bytes:
    """Updates as one; empty for none. Takes quadratic time: for the few that have queued, not for a whole document."""
    return merge_updates(*updates) if updates else b""


def merged(kind: Kind, parts: Sequence[bytes]) -> bytes:
    """One update that makes what `parts` make together; that it does is made sure of."""
    whole = Replica(kind, parts)
    snapshot = whole.update_since()
    copy = Replica(kind, [snapshot])
    try:
        if copy.text != whole.text or read_state(copy.state) != read_state(whole.state):
            raise AssertionError("a snapshot says something else than its updates")
        return snapshot
    finally:
        copy.close()
        whole.close()


def _chunks(parts: Iterable[bytes]) -> Iterator[list[bytes]]:
    left = iter(parts)
    while some := list(islice(left, _PARTS_PER_TRANSACTION)):
        yield some
