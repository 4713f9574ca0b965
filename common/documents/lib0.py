"""lib0's binary encoding, as Yjs and y-protocols use it: https://github.com/dmonad/lib0. Strict: whoever reads past the
end, or a number that JavaScript could not hold, raises Malformed.
"""

_LARGEST = 2**53 - 1
_LAST_SHIFT = 49


class Malformed(ValueError):
    """Bytes that no well-behaved client sends."""


class Reader:
    """Reads `data` from the byte `at` on."""

    __slots__ = ("_data", "at")

    def __init__(self, data: bytes, at: int = 0) -> None:
        self._data = data
        self.at = at

    @property
    def left(self) -> int:
        """Bytes that were not read yet."""
        return len(self._data) - self.at

    def byte(self) -> int:
        """The next byte."""
        return self._take(1)[0]

    def skip(self, count: int) -> None:
        """Reads so many bytes and forgets them."""
        self._take(count)

    def uint(self) -> int:
        """A number from 0 to 2^53 - 1: seven bits a byte, the lowest first."""
        value = shift = 0
        while (byte := self.byte()) > 0x7F:
            value |= (byte & 0x7F) << shift
            shift += 7
            if shift > _LAST_SHIFT:
                raise Malformed("a number is too long")
        value |= byte << shift
        if value > _LARGEST:
            raise Malformed("a number is too large")
        return value

    def count(self) -> int:
        """How many things follow. Each takes a byte at least, so what promises more than there is promises nothing."""
        value = self.uint()
        if value > self.left:
            raise Malformed("it counts more than it holds")
        return value

    def buffer(self) -> bytes:
        """Bytes behind their length."""
        return self._take(self.uint())

    def text(self) -> str:
        """UTF-8 behind its length in bytes."""
        try:
            return self.buffer().decode()
        except UnicodeDecodeError:
            raise Malformed("a text is not UTF-8") from None

    def end(self) -> None:
        """Nothing is left."""
        if self.left:
            raise Malformed("it goes on behind its end")

    def _take(self, count: int) -> bytes:
        if count > self.left:
            raise Malformed("it ends too early")
        start, self.at = self.at, self.at + count
        return self._data[start : self.at]


def uint(value: int) -> bytes:
    """The bytes of a number from 0 to 2^53 - 1."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(0x80 | value & 0x7F)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def buffer(data: bytes) -> bytes:
    """`data` behind its length."""
    return uint(len(data)) + data


def text(value: str) -> bytes:
    """UTF-8 behind its length in bytes."""
    return buffer(value.encode())
