"""What is measured of documents, and the rows that come of it: performance.md says why these."""

import time
from collections.abc import Callable
from functools import partial
from itertools import chain
from statistics import median
from typing import NamedTuple
from uuid import UUID

import msgspec

from bench.documents.compaction import measure_compaction
from bench.documents.memory import Growth, measure_growth
from bench.documents.servers import Pair, fresh_api, fresh_relay, path_of, relay, two_apis
from bench.documents.spec import Opening, OpeningResult, Site, Typing, TypingResult
from bench.documents.typist import text_of, written_by
from bench.measure import run_load
from bench.rows import Found, Row, Say, at_least, at_most, beside
from bench.servers import Server
from bench.turns import Rounds, by_turns

_LOAD = "bench.documents.load"
_SEED = 11
_CROWD = 20
_AHEAD = 8
_AUTHORS = 4
_TAIL = 10_000
_LONG = 200_000
_CONTENT_BYTES = 10_000
_MB = 1_000_000
_SATURATED = 0.9


class Sizes(NamedTuple):
    """How much is measured. Medians are taken over `rounds`."""

    rounds: int
    keystrokes: int
    window_s: float
    openings: int
    held: int


FULL = Sizes(rounds=3, keystrokes=300, window_s=8, openings=7, held=300)
QUICK = Sizes(rounds=1, keystrokes=100, window_s=4, openings=5, held=300)


async def run_documents(sizes: Sizes, say: Say) -> Found:
    """Measures two APIs and the relay by turns, so that both meet the same noise."""
    async with two_apis() as pair, relay() as (server, site):
        bench = _Bench(sizes, say, pair, (server, site))
        await bench.warm_up()
        rows = [
            *await bench.keystrokes(),
            *await bench.crowd(),
            *await bench.throughput(),
            *await bench.openings(),
            *await bench.memory(),
            *await bench.compaction(),
        ]
        return Found(rows, bench.faults)


class _Typed(NamedTuple):
    """`cpu_s` is by process, of the window alone."""

    result: TypingResult
    cpu_s: dict[str, float]

    def per_cpu_s(self, *names: str) -> float:
        return self.result.delivered / sum(self.cpu_s[name] for name in names)


class _Opened(NamedTuple):
    """Milliseconds: of opening a document, and of reading and replaying its log with nothing around it."""

    ours: list[float]
    bare: list[float]


class _Bench:
    def __init__(self, sizes: Sizes, say: Say, pair: Pair, theirs: tuple[Server, Site]) -> None:
        self._sizes = sizes
        self._say = say
        self._pair = pair
        self._theirs = theirs
        self.faults = 0

    async def warm_up(self) -> None:
        """The first connections, and the first import of everything, are behind us."""
        for server, site in (self._ours, self._theirs):
            await self._type(server, Typing(site=site, path="", clients=4, typists=4, window_s=1, rate=20))

    async def keystrokes(self) -> list[Row]:
        """From somebody who types alone to somebody who reads along at the other process."""
        spec = partial(Typing, clients=2, typists=1, rate=20, window_s=self._sizes.keystrokes / 20)
        return self._latency("keystroke to another process", await self._rounds("1 typist x 20/s", spec))

    async def crowd(self) -> list[Row]:
        """The same with many who type in one document."""
        spec = partial(Typing, clients=_CROWD, typists=_CROWD, rate=5, window_s=self._sizes.window_s)
        name = f"{_CROWD} typists x 5/s"
        return self._latency(f"keystroke to another process, {name}", await self._rounds(name, spec))

    async def throughput(self) -> list[Row]:
        """All type as fast as the server lets them: one character after the other, so that no server can join what
        one client has typed; then several ahead, where one may.
        """
        window_s = self._sizes.window_s
        spec = partial(Typing, clients=_CROWD, typists=_CROWD, window_s=window_s)
        strict = await self._rounds(f"{_CROWD} typists, 1 character on its way each", partial(spec, ahead=1))
        ahead = await self._rounds(f"{_CROWD} typists, {_AHEAD} on their way each", partial(spec, ahead=_AHEAD))
        rate, base_rate = strict.medians(lambda t: t.result.delivered / t.result.seconds)
        ahead_rate, base_ahead_rate = ahead.medians(lambda t: t.result.delivered / t.result.seconds)
        cpu = median(t.per_cpu_s("api", "other api", "valkey") for t in strict.ours)
        base_cpu = median(t.per_cpu_s("baseline") for t in strict.theirs)
        name = f"characters to all {_CROWD} clients"
        return [
            at_least(f"{name}, each with 1 on its way", rate, "updates/s", 400, base_rate),
            beside(f"{name}, each with {_AHEAD} on their way", ahead_rate, "updates/s", base_ahead_rate),
            beside(f"{name} per CPU second of both APIs and Redis", cpu, "updates/s", base_cpu),
        ]

    async def openings(self) -> list[Row]:
        """From the connecting to the whole text, of documents that nobody has open."""
        tail = written_by(1, _TAIL, _SEED)
        rounds = range(1, self._sizes.rounds + 1)
        found = [(len(log), await self._open(log, number)) for number in rounds for log in (tail, tail[:1])]
        rows = []
        for length, words, row in ((_TAIL, f"{_TAIL:,} rows", partial(at_most, limit=50)), (1, "one row", beside)):
            opened = [opened for log, opened in found if log == length]
            ours = median(chain.from_iterable(each.ours for each in opened))
            bare = median(chain.from_iterable(each.bare for each in opened))
            rows.append(row(f"opening a document of {words}, median", ours, "ms", base=bare))
        return rows

    async def memory(self) -> list[Row]:
        """What a process grows by."""
        shelf = self._pair.shelf
        ours: list[Growth] = []
        theirs: list[Growth] = []
        for number in range(1, self._sizes.rounds + 1):
            *paths, shared, warm = [
                path_of(await shelf.make("fish\n" * (_CONTENT_BYTES // 5))) for _ in range(self._sizes.held + 2)
            ]
            for name, fresh, found in (
                ("throughline", fresh_api(self._pair), ours),
                ("baseline", fresh_relay(), theirs),
            ):
                growth = await measure_growth(fresh, paths, shared, warm)
                found.append(growth)
                self._say(f"memory, round {number}, {name}: {growth.document:.1f} KB, {growth.connection:.1f} KB")
                self._note(growth.failures)
        size = f"{_CONTENT_BYTES // 1000} KB"
        return [
            beside(
                f"memory per open document of {size}, with its connection",
                median(each.document for each in ours),
                "KB",
                median(each.document for each in theirs),
            ),
            beside(
                "memory per further connection",
                median(each.connection for each in ours),
                "KB",
                median(each.connection for each in theirs),
            ),
        ]

    async def compaction(self) -> list[Row]:
        """What a long document comes to, and what that takes."""
        updates = written_by(_AUTHORS, _LONG, _SEED)
        text = text_of(updates)
        found = []
        for number in range(1, self._sizes.rounds + 1):
            each = await measure_compaction(self._pair.shelf, updates, text)
            found.append(each)
            self._note(each.failures)
            self._say(
                f"{len(updates):,} keystrokes, round {number}: {each.typed_bytes:,} bytes compacted to {each.bytes:,} "
                f"in {each.seconds:.2f} s, pause {each.pause_ms:.1f} ms, beside {each.quiet_pause_ms:.1f}"
            )
        size, typed = (median(values) for values in zip(*((e.bytes, e.typed_bytes) for e in found), strict=True))
        pause, quiet = (median(values) for values in zip(*((e.pause_ms, e.quiet_pause_ms) for e in found), strict=True))
        return [
            at_most(f"{_LONG:,} keystrokes stored, compacted", size / _MB, "MB", 3, typed / _MB),
            beside("compacting them", median(each.seconds for each in found), "s"),
            beside("longest pause of the event loop meanwhile", pause, "ms", quiet),
        ]

    @property
    def _ours(self) -> tuple[Server, Site]:
        return self._pair.server, self._pair.site

    @staticmethod
    def _latency(name: str, rounds: Rounds[_Typed]) -> list[Row]:
        p50, base50 = rounds.medians(lambda t: t.result.latency.p50)
        p99, base99 = rounds.medians(lambda t: t.result.latency.p99)
        return [at_most(f"{name}, p50", p50, "ms", 5, base50), at_most(f"{name}, p99", p99, "ms", 20, base99)]

    async def _rounds(self, name: str, spec_of: Callable[..., Typing]) -> Rounds[_Typed]:
        async def type_one(number: int, whose: tuple[Server, Site]) -> _Typed:
            server, site = whose
            typed = await self._type(server, spec_of(site=site, path=""))
            self._say(f"{name}, round {number}, {site.name}: {_summary(typed)}")
            return typed

        return await by_turns(self._sizes.rounds, self._ours, self._theirs, type_one)

    async def _type(self, server: Server, spec: Typing) -> _Typed:
        """In a document that nobody has had open before."""
        shelf = self._pair.shelf
        document_id = await shelf.make()
        request = msgspec.json.encode(msgspec.structs.replace(spec, path=path_of(document_id))) + b"\n"
        output, cpu = await run_load(_LOAD, request, server.check, server.processes)
        typed = _Typed(msgspec.json.decode(output, type=TypingResult), cpu)
        if cpu.get("load", 0.0) > _SATURATED * spec.window_s:
            self._say("the load generator had no CPU to spare: the next line says too little")
        if spec.site.stores:
            await self._judge(typed.result, document_id)
        return typed

    async def _judge(self, result: TypingResult, document_id: UUID) -> None:
        faults = [*result.failures]
        if result.missing:
            faults.append(f"{result.missing} characters have not reached everybody")
        if result.texts != 1:
            faults.append(f"the document says {result.texts} different things")
        elif await self._pair.shelf.text(document_id) != result.text:
            faults.append("what is committed is not what the clients see")
        self._note(faults)

    async def _open(self, log: list[bytes], number: int) -> _Opened:
        """Each time another document, since a process keeps one for a while that it has had open."""
        shelf, text = self._pair.shelf, text_of(log)
        paths, bare = [], []
        for _ in range(self._sizes.openings):
            document_id = await shelf.make()
            await shelf.append(document_id, log)
            paths.append(path_of(document_id))
            begun = time.monotonic()
            await shelf.text(document_id)
            bare.append((time.monotonic() - begun) * 1000)
        server, site = self._ours
        output, _ = await run_load(_LOAD, msgspec.json.encode(Opening(site=site, paths=paths)) + b"\n", server.check)
        result = msgspec.json.decode(output, type=OpeningResult)
        self._note([*result.failures, *("a document opens with another text" for each in result.texts if each != text)])
        opened = _Opened(result.milliseconds or [0.0], bare)
        self._say(f"opening {len(log):,} rows, round {number}: {_list(opened.ours)} ms, bare {_list(bare)} ms")
        return opened

    def _note(self, faults: list[str]) -> None:
        self.faults += len(faults)
        for fault in faults[:3]:
            self._say(f"fault: {fault}")


def _list(values: list[float]) -> str:
    return " ".join(f"{value:.1f}" for value in values)


def _summary(typed: _Typed) -> str:
    result = typed.result
    cpu = " ".join(f"{name} {seconds:.2f}" for name, seconds in typed.cpu_s.items())
    return (
        f"{result.delivered} updates to all in {result.seconds:.1f} s, "
        f"latency {result.latency.p50:.2f}/{result.latency.p99:.2f} ms; CPU s: {cpu}"
        + (f"; {result.missing} missing, {result.texts} texts" if result.missing or result.texts != 1 else "")
        + (f"; {len(result.failures)} failures, such as {result.failures[:1]}" if result.failures else "")
    )
