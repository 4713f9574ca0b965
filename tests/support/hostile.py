"""What no well-behaved client sends to a document's room, and what it gets for it."""

from typing import NamedTuple

from common.documents.lib0 import buffer, text, uint
from tests.support.raw_sync import (
    EMPTY_UPDATE,
    State,
    awareness_message,
    delete_set,
    item,
    step1,
    step2,
    string_item,
    update,
    update_message,
)

ME, NOBODY = 4_000_000_001, 4_000_000_002
"""A client id of the attacker, and one that has never written anything."""
_MALFORMED, _TOO_LARGE = 4400, 4413
_ENDLESS = b"\xff" * 10 + b"\x7f"
_HUGE = b"\xff\xff\xff\xff\x0f"
_GOOD = update(ME, 0, [string_item("never seen")])


class Attack(NamedTuple):
    """`code` closes the attacker's own connection; None: it is passed over, and the connection lives."""

    name: str
    frames: tuple[bytes | str, ...]
    code: int | None = _MALFORMED


def _updates(name: str, *updates: bytes, code: int | None = _MALFORMED) -> Attack:
    return Attack(name, tuple(map(update_message, updates)), code)


def _items(name: str, *items: bytes, code: int | None = _MALFORMED) -> Attack:
    return _updates(name, update(ME, 0, items), code=code)


def _state(name: str, state: str, code: int | None = _MALFORMED, clock: int = 1) -> Attack:
    return Attack(name, (awareness_message([State(ME, clock, state)]),), code)


def _nested_any(depth: int) -> bytes:
    """An array in an array in an array …, as lib0's Any."""
    return uint(1) + b"\x75\x01" * depth + b"\x7e"


FRAMES = [
    Attack("empty frame", (b"",)),
    Attack("text frame", ("hello",)),
    Attack("text frame that looks like a token", ('{"token": "x"}',)),
    Attack("message of unknown type", (b"\x09",)),
    Attack("message type without an end", (_ENDLESS,)),
    Attack("auth message of a client", (b"\x02\x00" + text("permission denied"),)),
    Attack("sync message of type 3", (b"\x00\x03" + buffer(_GOOD),)),
    Attack("sync message of a huge type", (b"\x00" + _HUGE + buffer(_GOOD),)),
    Attack("sync message without a type", (b"\x00",)),
    Attack("update without a length", (b"\x00\x02",)),
    Attack("update that is longer than its frame", (b"\x00\x02" + _HUGE + _GOOD,)),
    Attack("update with a length beyond 2^53", (b"\x00\x02" + _ENDLESS,)),
    Attack("bytes behind an update message", (update_message(_GOOD) + b"\x00",)),
    Attack("two messages in one frame", (update_message(_GOOD) * 2,)),
    Attack("bytes behind a query for awareness", (b"\x03\x00",)),
    Attack("message of 1 MB and a byte", (b"\x00\x02".ljust(1024 * 1024 + 1, b"\x00"),), _TOO_LARGE),
    Attack("text frame of 1 MB and a byte", ("x" * (1024 * 1024 + 1),)),
    Attack("repeated answers that say nothing", (step2(EMPTY_UPDATE),) * 500, None),
]

STATES = [
    Attack("no state vector", (step1(b""),)),
    Attack("state vector that counts what is not there", (step1(_HUGE),)),
    Attack("state vector that ends in a number", (step1(b"\x01\x80"),)),
    Attack("bytes behind a state vector", (step1(b"\x00\x00"),)),
    Attack("state vector with a huge clock", (step1(uint(1) + uint(ME) + uint(2**53 - 1)),)),
    Attack("state vector of a stranger", (step1(uint(2) + uint(ME) + uint(9) + uint(NOBODY) + uint(7)),), None),
    Attack("state vector with a client twice", (step1(uint(2) + (uint(ME) + uint(9)) * 2),), None),
]

STRUCTURES = [
    _updates("no update", b""),
    _updates("5 bytes that reserve half a gigabyte", _HUGE),
    _updates("huge count of items", uint(1) + _HUGE + uint(ME) + b"\x00"),
    _updates("huge count of deletions' clients", b"\x00" + _HUGE),
    _updates("huge count of deletions", b"\x00" + uint(1) + uint(ME) + _HUGE),
    _updates("bytes behind an update", _GOOD + b"\x00"),
    _updates("a client twice", uint(2) + (uint(1) + uint(ME) + uint(0) + string_item("a")) * 2 + b"\x00"),
    _updates("first clock beyond 2^31", update(ME, 2**31, [string_item("a")])),
    _updates("first clock of 2^53 - 1", update(ME, 2**53 - 1, [string_item("a")])),
    _updates("client id beyond 2^53", uint(1) + uint(1) + _ENDLESS + uint(0) + string_item("a") + b"\x00"),
    _updates("deletions beyond 2^31", b"\x00" + delete_set(ME, (2**31, 1))),
    _updates("deletions of 2^53 - 1 items", b"\x00" + delete_set(ME, (1, 2**53 - 1))),
    _updates("deletion of nothing", b"\x00" + delete_set(ME, (0, 0))),
    _items("deleted content beyond 2^31", item(1, uint(2**31 + 1))),
    _items("gap beyond 2^31", bytes([10]) + uint(2**40)),
    _items("collected content beyond 2^31", bytes([0]) + uint(2**40)),
    _items("empty text", string_item("")),
    _items("text that is no UTF-8", string_item(b"\xff\xfe")),
    _items("text that ends within a character", string_item("é".encode()[:1])),
    _items("lone surrogate in UTF-8", string_item(b"\xed\xa0\x80")),
    _items("pair of surrogates in UTF-8", string_item(b"\xed\xa0\xbd\xed\xb0\x9f")),
    _items("text longer than the update", bytes([4, 1]) + text("content") + _HUGE + b"x"),
    _items("root of another name", string_item("unseen", root="default")),
    _items("root without a name", string_item("unseen", root="")),
    _items("root whose name is a whole book", string_item("unseen", root="content" * 10_000)),
    _items("attribute of the text", item(4, text("v"), key="k")),
    _items("nested parent", bytes([4, 0]) + uint(ME) + uint(0) + text("v")),
    _items("parent that is neither", bytes([4, 2]) + text("content") + text("v")),
    _items("gap with neighbours", bytes([0x8A]) + uint(ME) + uint(0) + uint(1)),
    _items("content JSON", item(2, uint(1) + text("{}"))),
    _items("content binary", item(3, buffer(b"\x00" * 8))),
    _items("content embed", item(5, text('{"image": "x"}'))),
    _items("content map", item(7, uint(1))),
    _items("content XML element", item(7, uint(3) + text("script"))),
    _items("content of an unknown type", item(7, uint(99))),
    _items("content any", item(8, uint(1) + b"\x7e")),
    _items("content any, nested 20,000 deep", item(8, _nested_any(20_000))),
    _items("content any, nested 400,000 deep", item(8, _nested_any(400_000))),
    _items("content any, huge count", item(8, _HUGE)),
    _items("content document", item(9, text("guid") + b"\x76\x00")),
    _items("content move", item(11, b"\x00" * 8)),
    _items("content 31", item(31, b"\x00" * 8)),
    _items("text that forgets where it is", bytes([4]) + text("v")),
]

FORMATS = [
    _items(f"format of {name}", item(6, text("bold") + text(value)))
    for name, value in (
        ("no JSON", "{"),
        ("nothing", ""),
        ("undefined", "undefined"),
        ("NaN", "NaN"),
        ("a lone surrogate", '"\\ud800"'),
        ("lists, nested 200,000 deep", "[" * 200_000 + "]" * 200_000),
        ("objects, nested 100,000 deep", '{"a":' * 100_000 + "1" + "}" * 100_000),
    )
]

REFERENCES = [
    _updates("clock that leaves a hole", update(ME, 5, [string_item("a")]), code=None),
    _items("left neighbour that nobody has", string_item("a", left=(NOBODY, 3)), code=None),
    _items("right neighbour that nobody has", string_item("a", right=(NOBODY, 3)), code=None),
    _items("left neighbour of one's own future", string_item("a", left=(ME, 7))),
    _items("itself as left neighbour", string_item("a", left=(ME, 0))),
    _items("itself as right neighbour", string_item("a", right=(ME, 0))),
    _items("two that wait for each other", string_item("a", left=(ME, 1)), string_item("b", left=(ME, 0))),
    _updates(
        "two clients that wait for each other",
        uint(2)
        + (uint(1) + uint(ME) + uint(0) + string_item("a", left=(NOBODY, 0)))
        + (uint(1) + uint(NOBODY) + uint(0) + string_item("b", left=(ME, 0)))
        + b"\x00",
    ),
    _items("text behind a hole", bytes([10]) + uint(5), string_item("a"), code=None),
    _updates("deletion of what nobody has", b"\x00" + delete_set(NOBODY, (0, 1000)), code=None),
]

AWARENESS = [
    _state("awareness that is no JSON", "{"),
    _state("awareness of nothing", ""),
    _state("awareness that is a number", "5"),
    _state("awareness that is a list", "[]"),
    _state("awareness that is a text", '"x"'),
    _state("awareness with NaN", '{"x": NaN}'),
    _state("awareness with infinity", '{"x": -Infinity}'),
    _state("awareness with bytes behind", '{"x": 1} {}'),
    _state("awareness nested 100,000 deep", '{"x": ' + "[" * 100_000 + "]" * 100_000 + "}"),
    _state("awareness of almost 1 MB", '{"x": "' + "y" * 1_000_000 + '"}'),
    Attack("clock of awareness beyond 2^53", (b"\x01" + buffer(uint(1) + uint(ME) + _ENDLESS + text("{}")),)),
    Attack("awareness that counts what is not there", (b"\x01" + buffer(_HUGE),)),
    Attack("bytes behind awareness", (b"\x01" + buffer(uint(0) + b"\x00"),)),
    Attack("awareness that is no UTF-8", (b"\x01" + buffer(uint(1) + uint(ME) + uint(1) + buffer(b'{"\xff": 1}')),)),
    Attack("awareness without a length", (b"\x01",)),
]

ATTACKS = [*FRAMES, *STATES, *STRUCTURES, *FORMATS, *REFERENCES, *AWARENESS]
INCOMPLETE = {
    "clock that leaves a hole": update_message(update(ME, 5, [string_item("a")])),
    "neighbour that nobody has": update_message(update(ME, 0, [string_item("a", left=(NOBODY, 3))])),
    "deletion of what nobody has": update_message(b"\x00" + delete_set(NOBODY, (0, 1000))),
}
"""What an honest client sends as well, when it has just come back; it goes on with what is missing."""

PREFIXES = [update_message(_GOOD[:end]) for end in range(len(_GOOD))]
"""Of an update that would be good: cut off behind each byte."""
