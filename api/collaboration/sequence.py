"""Which updates of a document's log are here, and which are to be taken in next."""

from collections.abc import Iterator


class Sequence:
    """Everything up to `seq` is here. What comes out of order waits for what is before it."""

    def __init__(self, seq: int) -> None:
        self.seq = seq
        self._ahead: dict[int, bytes | None] = {}

    @property
    def has_gap(self) -> bool:
        """Whether something is here while something before it is not."""
        return bool(self._ahead)

    def hold(self, seq: int, update: bytes) -> None:
        """Keeps an update that others have committed until it is its turn; what is known already is not kept."""
        if seq > self.seq:
            self._ahead.setdefault(seq, update)

    def skip(self, first: int, last: int) -> None:
        """The updates from `first` to `last` are here already: they are our own."""
        self._ahead.update(dict.fromkeys(range(first, last + 1)))

    def take(self) -> Iterator[bytes]:
        """The updates whose turn it is, in order."""
        while self.seq + 1 in self._ahead:
            self.seq += 1
            update = self._ahead.pop(self.seq)
            if update is not None:
                yield update

    def jump(self, seq: int) -> None:
        """Everything up to `seq` has been taken in otherwise."""
        self.seq = max(self.seq, seq)
        self._ahead = {number: update for number, update in self._ahead.items() if number > self.seq}
