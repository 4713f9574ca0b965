"""Several people in one document, each at a connection of their own, and when each character reached each of them."""

import asyncio
import json
import random
import sys
import time
from functools import lru_cache

from bench.documents.socket import Socket, update_of
from bench.documents.spec import WARM_UP_S, Typing, TypingResult
from bench.documents.typist import Typist, client_ids, text_of
from bench.load import quantiles
from common.documents import lib0
from common.documents.kinds import MARKDOWN
from common.documents.update_scan import Span, scan_update

_SEED = 7
_MOST = 8_000
"""Characters that are prepared for one who is as fast as the server."""
_BEFORE_S = 0.3
_LOOK_S = 0.1


class TypingLoad:
    """Takes notes while the clock runs, and reads them afterwards: reading costs more than what is measured."""

    def __init__(self, spec: Typing) -> None:
        self._spec = spec
        self._ids = client_ids(spec.typists, _SEED)
        count = int(2 * spec.rate * (WARM_UP_S + spec.window_s)) if spec.rate else _MOST
        self._updates = [Typist(client).at_the_end(count) for client in self._ids]
        self._messages = [[b"\0\2" + lib0.buffer(update) for update in updates] for updates in self._updates]
        self._names = [lib0.uint(client) for client in self._ids]
        self._sockets: list[Socket] = []
        self._sent: list[list[int]] = [[] for _ in self._ids]
        self._echoed = [0] * spec.typists
        self._received: list[list[tuple[int, bytes]]] = [[] for _ in range(spec.clients)]
        self._window_ns = (0, 0)

    async def run(self) -> TypingResult:
        """Tells the window's begin and end on standard error, and measures."""
        spec = self._spec
        for number in range(spec.clients):
            self._sockets.append(await self._open(number))
        begin = time.monotonic() + _BEFORE_S
        first = begin + WARM_UP_S
        last = first + spec.window_s
        self._window_ns = (int(first * 1e9), int(last * 1e9))
        print(json.dumps([first, last]), file=sys.stderr, flush=True)
        await asyncio.sleep(begin - time.monotonic())
        if spec.rate:
            await asyncio.gather(*(self._type_steadily(typist) for typist in range(spec.typists)))
        else:
            for typist in range(spec.typists):
                self._type_on(typist)
        await asyncio.sleep(last - time.monotonic())
        notes = _Notes(spec, self._sent, self._window_ns, {client: place for place, client in enumerate(self._ids)})
        deadline = last + spec.drain_s
        while notes.read(self._received) and time.monotonic() < deadline:
            await asyncio.sleep(_LOOK_S)
        return self._result(notes)

    async def _open(self, number: int) -> Socket:
        site, note = self._spec.site, self._received[number]
        source = (number - 1) % self._spec.clients
        name = self._names[source] if not self._spec.rate and source < self._spec.typists else None

        def take(now: int, message: bytes) -> None:
            note.append((now, message))
            if name is not None and name in message:
                self._hear_of(source, message)

        port = site.ports[number % len(site.ports)]
        socket = await Socket.open(port, self._spec.path, site.headers, take)
        if site.stores:
            socket.ask()
            await socket.answer
        return socket

    async def _type_steadily(self, typist: int) -> None:
        """As people do, not as a clock: intervals between half of the mean one and one and a half of it."""
        rng = random.Random(typist)
        interval_s = 1 / self._spec.rate
        due = time.monotonic() + rng.random() * interval_s
        while due * 1e9 < self._window_ns[1]:
            await asyncio.sleep(due - time.monotonic())
            self._send(typist)
            due += (0.5 + rng.random()) * interval_s

    def _hear_of(self, typist: int, message: bytes) -> None:
        span = _spans(message).get(self._ids[typist])
        if span is not None and span.end > self._echoed[typist]:
            self._echoed[typist] = span.end
            self._type_on(typist)

    def _type_on(self, typist: int) -> None:
        sent = self._sent[typist]
        while len(sent) < min(self._echoed[typist] + self._spec.ahead, _MOST):
            if time.monotonic_ns() >= self._window_ns[1]:
                return
            self._send(typist)

    def _send(self, typist: int) -> None:
        sent = self._sent[typist]
        message = self._messages[typist][len(sent)]
        sent.append(time.monotonic_ns())
        self._sockets[typist].send(message)

    def _result(self, notes: "_Notes") -> TypingResult:
        spec = self._spec
        failures = [socket.failure for socket in self._sockets if socket.failure]
        if not spec.rate and any(len(sent) == _MOST for sent in self._sent):
            failures.append("somebody has typed all that was prepared: the server was faster than this could measure")
        for socket in self._sockets:
            socket.close()
        texts = {self._text_at(number) for number in range(spec.clients)}
        return TypingResult(
            delivered=notes.delivered,
            sent=sum(map(len, self._sent)),
            seconds=spec.window_s,
            latency=quantiles(notes.latencies),
            texts=len(texts),
            text=texts.pop(),
            missing=notes.missing,
            failures=failures,
        )

    def _text_at(self, number: int) -> str:
        own = self._updates[number][: len(self._sent[number])] if number < self._spec.typists else []
        return text_of([*own, *(update_of(message) for _, message in self._received[number])])


class _Notes:
    """What has arrived where, and when. A server may join what one client has typed in a row into one update."""

    def __init__(self, spec: Typing, sent: list[list[int]], window_ns: tuple[int, int], places: dict[int, int]) -> None:
        self.latencies: list[float] = []
        self.delivered = 0
        self._spec = spec
        self._sent = sent
        self._window_ns = window_ns
        self._places = places
        self._read = [0] * spec.clients
        self._known = [[0] * spec.typists for _ in range(spec.clients)]
        self._last = [[0] * len(times) for times in sent]
        self._clients = [[1] * len(times) for times in sent]

    @property
    def missing(self) -> int:
        """Characters that some client lacks."""
        return sum(count < self._spec.clients for counts in self._clients for count in counts)

    def read(self, received: list[list[tuple[int, bytes]]]) -> bool:
        """Reads what has come since the last time; whether anything is missing."""
        for number, notes in enumerate(received):
            for now, message in notes[self._read[number] :]:
                for client, span in _spans(message).items():
                    self._arrive(number, self._places[client], span, now)
            self._read[number] = len(notes)
        return self.missing > 0

    def _arrive(self, number: int, typist: int, span: Span, now: int) -> None:
        first, last = self._window_ns
        for at in range(max(span.first, self._known[number][typist]), span.end):
            sent = self._sent[typist][at]
            if first <= sent < last and (number - typist) % 2:
                self.latencies.append((now - sent) / 1e6)
            self._last[typist][at] = max(self._last[typist][at], now)
            self._clients[typist][at] += 1
            if self._clients[typist][at] == self._spec.clients:
                self.delivered += first <= self._last[typist][at] < last
        self._known[number][typist] = max(self._known[number][typist], span.end)


@lru_cache(maxsize=100_000)
def _spans(message: bytes) -> dict[int, Span]:
    return scan_update(update_of(message), MARKDOWN).spans
