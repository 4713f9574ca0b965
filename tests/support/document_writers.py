"""People who type into one document, each a line of their own, and people who only look on."""

import time
from collections.abc import Sequence

from tests.support.documents import make_document, stored_text
from tests.support.editors import Editor, Editors, agree
from tests.support.eventually import eventually
from tests.support.insist import insist
from tests.support.system import Client, System

_LOG_IS_WHOLE = """
    select d.head_seq, d.snapshot_seq, count(u.seq) as rows, coalesce(max(u.seq), d.snapshot_seq) as last
    from documents d left join document_updates u on u.document_id = d.id and u.seq > d.snapshot_seq
    where d.id = $1::uuid group by d.id, d.head_seq, d.snapshot_seq
"""


class Writers:
    """One who types and one who looks on for each of `people`. A line is at any time the beginning of what its writer
    types, wherever it is read: characters of one writer come in order.
    """

    def __init__(self, document: str, people: Sequence[Client], typists: list[Editor], watchers: list[Editor]) -> None:
        self.document = document
        self.people = people
        self.typists = typists
        self.watchers = watchers
        self._lines = ["" for _ in typists]

    async def begin(self, characters: int, pause_ms: float) -> None:
        """All begin to type so much; the last line first, so that no place is moved by who types already."""
        began = list(self._lines)
        for number, typist in reversed(list(enumerate(self.typists))):
            place = sum(len(f"{each}:{line}\n") for each, line in enumerate(self._lines[:number]))
            place += len(f"{number}:{self._lines[number]}")
            typed = " ".join(str(count) for count in range(characters))[:characters]
            began[number] += typed
            await typist.begin_typing(place, typed, pause_ms)
        self._lines = began

    async def flows(self, timeout_s: float = 60) -> float:
        """Waits until all who look on see what each has typed by now; how long that took, in seconds."""
        began = time.monotonic()
        typed = [self._lengths(await typist.text())[number] for number, typist in enumerate(self.typists)]

        async def shown(watcher: Editor) -> bool:
            seen = self._lengths(await watcher.text())
            assert all(now >= then for now, then in zip(seen, typed, strict=True)), (seen, typed)
            return True

        for watcher in self.watchers:
            await eventually(lambda watcher=watcher: shown(watcher), timeout_s)  # type: ignore[misc]
        return time.monotonic() - began

    async def seen(self) -> list[str]:
        """What those who look on show: all of it was told to them."""
        return [await watcher.text() for watcher in self.watchers]

    async def lost(self, reader: Client, seen: Sequence[str]) -> int:
        """How many characters of what was `seen` are not in the database."""
        stored = self._lengths(await self._stored(reader))
        return sum(max(0, told - kept) for text in seen for told, kept in zip(self._lengths(text), stored, strict=True))

    async def finish(self, system: System, timeout_s: float = 180) -> None:
        """Waits until all have typed everything; then all show it, and the database has it, in a log without a hole."""
        for typist in self.typists:
            await typist.has_typed(timeout_s)
        text = await agree(*self.typists, *self.watchers, timeout_s=timeout_s)
        assert text == "".join(f"{number}:{line}\n" for number, line in enumerate(self._lines))
        for reader in self.people:
            assert await self._stored(reader) == text
        [log] = await system.rows(_LOG_IS_WHOLE, self.document)
        assert log["last"] == log["head_seq"] == log["snapshot_seq"] + log["rows"], dict(log)

    async def _stored(self, reader: Client) -> str:
        await insist(lambda: reader.http.get(f"/v1/documents/{self.document}"), (200,))
        return await stored_text(reader, self.document)

    def _lengths(self, text: str) -> list[int]:
        """How much there is of each line."""
        lines = text.splitlines()
        assert len(lines) == len(self._lines), text
        for number, (shown, whole) in enumerate(zip(lines, self._lines, strict=True)):
            assert f"{number}:{whole}".startswith(shown), (number, shown)
        return [len(line) for line in lines]


async def gather_writers(editors: Editors, people: Sequence[Client]) -> Writers:
    """They have a new document open, and have not begun."""
    document = await make_document(people[0], "".join(f"{number}:\n" for number in range(len(people))))
    typists = [await editors.join(each, document, name=f"typist {number}") for number, each in enumerate(people)]
    watchers = [await editors.join(each, document, name=f"watcher {number}") for number, each in enumerate(people)]
    return Writers(document, people, typists, watchers)


async def everybody_is_shown(writers: Writers, timeout_s: float) -> float:
    """Waits until each is shown all others; how long that took, in seconds."""
    began = time.monotonic()
    everybody = [*writers.typists, *writers.watchers]

    async def shown() -> bool:
        return all([len((await editor.report()).others) == len(everybody) - 1 for editor in everybody])

    await eventually(shown, timeout_s)
    return time.monotonic() - began
