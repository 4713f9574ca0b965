"""What is wrong with a setting, in the words of the person who set it."""

import re
from typing import Any

from msgspec import inspect

_AT = re.compile(r"(?P<what>.*) - at `\$(?:\[(?P<index>\d+)\])?\.?(?P<field>.*)`", re.DOTALL)
_ENTRY = (
    (re.compile(r"Object missing required field `(.*)`"), r"\1 is missing"),
    (re.compile(r"Object contains unknown field `(.*)`"), r"\1 is not known"),
    (re.compile(r"Expected `str` matching regex .*"), "must be a lower case letter, then up to 39 of a-z 0-9 _ -"),
    (re.compile(r"Expected `(.*)`, got `(.*)`"), r"must be \1, not \2"),
)
_JSON_NAMES = {
    "str": "text",
    "array": "a list",
    "object": "an object",
    "int": "a number",
    "float": "a number",
    "decimal": "a number",
    "bool": "true or false",
}


def wanted(kind: Any) -> str:
    """What a setting of this type takes: "a whole number of at least 1", "one of development, production"."""
    info = inspect.type_info(kind)
    match info:
        case inspect.LiteralType(values=values):
            return f"one of {', '.join(str(value) for value in values)}"
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType(ge=least, le=None):
            return f"a whole number of at least {least}"
        case inspect.IntType(ge=least, le=most):
            return f"a whole number from {least} to {most}"
        case inspect.FloatType(gt=bound):
            return f"a number above {bound:g}"
    raise NotImplementedError(info)


def entry_problem(message: str) -> str:
    """What msgspec says of a JSON array's entry, as "entry 1: baseUrl is missing"; entries count from 1."""
    place = _AT.fullmatch(message)
    what, index, field = place.group("what", "index", "field") if place else (message, None, "")
    for pattern, words in _ENTRY:
        if pattern.fullmatch(what):
            what = pattern.sub(words, what)
            break
    for name, plain in _JSON_NAMES.items():
        what = re.sub(rf"\b(must be|not) {name}\b", rf"\1 {plain}", what)
    entry = "" if index is None else f"entry {int(index) + 1}:"
    return " ".join(filter(None, (entry, field, what)))
