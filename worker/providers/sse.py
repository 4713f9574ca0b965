"""Server-sent events as providers send them: bytes in, the payloads of complete events out."""


class SseSplitter:
    """Cuts a byte stream into the `data` of its events, wherever the network cut it.

    Comments, names and ids are dropped: every provider repeats the type inside the JSON. An event counts
    once its blank line has arrived, so the tail of a cut stream is never taken for an event.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> list[bytes]:
        """The payloads of the events that `chunk` completes; several `data` lines are joined by a newline."""
        buffer = self._rest + chunk
        held_back = b""
        if b"\r" in buffer:
            # A CR at the very end waits: its LF may be the first byte of the next chunk.
            held_back = b"\r" if buffer.endswith(b"\r") else b""
            buffer = buffer.removesuffix(held_back).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        lines = buffer.split(b"\n")
        self._rest = lines.pop() + held_back
        payloads = []
        for line in lines:
            if line:
                if line.startswith(b"data:"):
                    self._data.append(line[6:] if line.startswith(b" ", 5) else line[5:])
            elif self._data:
                payloads.append(self._data[0] if len(self._data) == 1 else b"\n".join(self._data))
                self._data = []
        return payloads
