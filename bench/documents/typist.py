"""People who type, with the updates that Yjs makes of it: one a keystroke, made before any clock starts."""

import random
from itertools import chain

from pycrdt import Doc, Text

from common.documents.kinds import MARKDOWN

_LETTERS = "etaoin shrdlu"
_JUMP = 1 / 40
_FAR = 0.2
_NEAR = 400
_DELETION = 0.1


class Typist:
    """Somebody with a text of their own, in which they are `client`."""

    def __init__(self, client: int) -> None:
        self._doc: Doc[Text] = Doc(client_id=client)
        self._text = self._doc.get(MARKDOWN.root, type=Text)
        self._made: list[bytes] = []
        self._subscription = self._doc.observe(lambda event: self._made.append(event.update))

    def at_the_end(self, count: int) -> list[bytes]:
        """One character after the other. What the neighbours are is the same whatever others write elsewhere."""
        self._made.clear()
        for at in range(count):
            self._text.insert(at, _LETTERS[at % len(_LETTERS)])
        return self._made.copy()

    def here_and_there(self, count: int, rng: random.Random) -> list[bytes]:
        """As one writes a text: every fortieth keystroke the cursor goes elsewhere, most often nearby, and every tenth
        takes a character back.
        """
        self._made.clear()
        length = cursor = 0
        for _ in range(count):
            if rng.random() < _JUMP:
                far = rng.random() < _FAR
                cursor = rng.randint(0, length) if far else max(0, min(length, int(cursor + rng.gauss(0, _NEAR))))
            if cursor and rng.random() < _DELETION:
                del self._text[cursor - 1 : cursor]
                cursor, length = cursor - 1, length - 1
            else:
                self._text.insert(cursor, rng.choice(_LETTERS))
                cursor, length = cursor + 1, length + 1
        return self._made.copy()


def client_ids(count: int, seed: int) -> list[int]:
    """As Yjs draws them, of 32 bits; all of the same length."""
    rng = random.Random(seed)
    return [rng.getrandbits(31) | 1 << 31 for _ in range(count)]


def written_by(authors: int, keystrokes: int, seed: int) -> list[bytes]:
    """The log of a document in which `authors` have written at the same time, each in a part of their own."""
    rng = random.Random(seed)
    share = keystrokes // authors
    logs = [Typist(client).here_and_there(share, rng) for client in client_ids(authors, seed)]
    return list(chain.from_iterable(zip(*logs, strict=True)))


def text_of(updates: list[bytes]) -> str:
    """What a document says that is made of `updates`."""
    doc: Doc[Text] = Doc()
    text = doc.get(MARKDOWN.root, type=Text)
    with doc.transaction():
        for update in updates:
            doc.apply_update(update)
    return str(text)
