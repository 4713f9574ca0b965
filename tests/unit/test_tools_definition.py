"""What @tool makes of a definition, and what it refuses."""

import sys
from collections.abc import Awaitable, Callable
from datetime import date
from types import ModuleType
from typing import Annotated, Any, Literal, cast
from uuid import UUID, uuid4

import msgspec
import pytest

from common.model.run_state import Effect
from worker.tools.arguments import ToolDefinitionError
from worker.tools.base import InvalidArguments, Tool, ToolContext, idempotency_key, tool
from worker.tools.transaction import ReadContext, TransactionContext

CONTEXT = ToolContext(
    run_id=uuid4(),
    conversation_id=uuid4(),
    workspace_id=uuid4(),
    user="ada",
    tool_call_id="call_1",
    idempotency_key="k",
    attempt=1,
)


class Address(msgspec.Struct):
    street: str


@tool
async def parcel(
    pieces: Annotated[int, msgspec.Meta(ge=1, description="How many.")],
    to: Address,
    who: ToolContext,
    due: date | None = None,
    tags: list[str] = [],  # noqa: B006
    speed: Literal["slow", "fast"] = "slow",
) -> dict[str, Any]:
    """Sends a parcel.

    It takes a day.

    Args:
        to: Where it goes,
            in plain words.
        due (date): The last acceptable day.
    """
    return {"pieces": pieces, "street": to.street, "due": due, "tags": tags, "speed": speed, "user": who.user}


@tool(effect=Effect.READ, timeout_s=2.5, name="look-up")
class _Lookup(msgspec.Struct, rename="camel"):
    """Looks a word up."""

    word: str
    max_hits: int = 3

    async def run(self, context: ToolContext) -> str:
        return f"{context.user}:{self.word}:{self.max_hits}"


Lookup = cast(Tool, _Lookup)
"""Type checkers take no notice of what a class decorator returns."""


def test_schema_of_a_function_holds_its_parameters_and_never_the_context() -> None:
    """The model sees every parameter with its type, limits, default and documentation, and no context."""
    assert parcel.parameters == {
        "type": "object",
        "properties": {
            "pieces": {"type": "integer", "minimum": 1, "description": "How many."},
            "to": {"$ref": "#/$defs/Address", "description": "Where it goes, in plain words."},
            "due": {
                "anyOf": [{"type": "string", "format": "date"}, {"type": "null"}],
                "default": None,
                "description": "The last acceptable day.",
            },
            "tags": {"type": "array", "items": {"type": "string"}, "default": []},
            "speed": {"enum": ["fast", "slow"], "default": "slow"},
        },
        "required": ["pieces", "to"],
        "additionalProperties": False,
        "$defs": {
            "Address": {
                "title": "Address",
                "type": "object",
                "properties": {"street": {"type": "string"}},
                "required": ["street"],
            }
        },
    }


def test_schema_of_a_class_uses_its_wire_names() -> None:
    """A class's schema names its fields as they are named in JSON, and refuses unknown ones."""
    assert Lookup.parameters["properties"].keys() == {"word", "maxHits"}
    assert Lookup.parameters["additionalProperties"] is False


def test_description_is_the_docstring_without_its_args_section() -> None:
    """The model reads the docstring; the parameters' documentation stands in the schema instead."""
    assert parcel.description == "Sends a parcel.\n\nIt takes a day."


def test_declarations_are_kept_and_an_undeclared_effect_means_at_most_once() -> None:
    """Name, effect and time limit are as declared; the careful class is the default."""
    assert (Lookup.name, Lookup.effect, Lookup.timeout_s) == ("look-up", Effect.READ, 2.5)
    assert (parcel.name, parcel.effect, parcel.timeout_s) == ("parcel", Effect.AT_MOST_ONCE, None)


async def test_call_passes_converted_arguments_and_the_context() -> None:
    """A function gets its arguments as its own types and the context of the call; its result becomes JSON."""
    arguments = parcel.validate({"pieces": 2, "to": {"street": "Elm"}, "due": "2026-01-02", "tags": ["a"]})
    result = msgspec.json.decode(await parcel.call(arguments, CONTEXT))
    expected = {
        "pieces": 2,
        "street": "Elm",
        "due": "2026-01-02",
        "tags": ["a"],
        "speed": "slow",
        "user": "ada",
    }
    assert result == expected


async def test_call_of_a_class_runs_it_with_the_context() -> None:
    """A class is run with its fields set; a result that is a string passes as it is."""
    assert await Lookup.call(Lookup.validate({"word": "tea", "maxHits": 1}), CONTEXT) == "ada:tea:1"


async def test_mutable_default_is_not_shared_between_calls() -> None:
    """Two calls never share a default list."""
    first: Any = parcel.validate({"pieces": 1, "to": {"street": "Elm"}})
    second: Any = parcel.validate({"pieces": 1, "to": {"street": "Elm"}})
    assert first.tags is not second.tags


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"to": {"street": "Elm"}}, "`pieces`"),
        ({"pieces": "2", "to": {"street": "Elm"}}, "$.pieces"),
        ({"pieces": 0, "to": {"street": "Elm"}}, "$.pieces"),
        ({"pieces": 1, "to": {"street": 5}}, "$.to.street"),
        ({"pieces": 1, "to": {"street": "Elm"}, "colour": "red"}, "`colour`"),
        ({"pieces": 1, "to": {"street": "Elm"}, "who": {"user": "eve"}}, "`who`"),
        ({"pieces": 1, "to": {"street": "Elm"}, "speed": "warp"}, "$.speed"),
        ([], "object"),
    ],
)
def test_validate_names_the_field_that_is_wrong(arguments: Any, named: str) -> None:
    """Arguments outside of the schema are refused with a message that names the tool and the field."""
    with pytest.raises(InvalidArguments) as refused:
        parcel.validate(arguments)
    assert named in str(refused.value)
    assert "parcel" in str(refused.value)


def test_validate_refuses_unknown_fields_of_a_class() -> None:
    """A class need not say so itself: a field that it does not have is refused."""
    with pytest.raises(InvalidArguments, match="workspaceId"):
        Lookup.validate({"word": "tea", "workspaceId": str(uuid4())})


async def untyped(a) -> Any:  # type: ignore[no-untyped-def]
    """Documented."""


def sync(a: int) -> Any:
    """Documented."""


async def variadic(*a: int) -> Any:
    """Documented."""


async def positional(a: int, /) -> Any:
    """Documented."""


async def undocumented(a: int) -> None: ...


async def misdocumented(a: int) -> None:
    """Documented.

    Args:
        b: Nothing.
    """


async def chooses_tenant(workspace_id: str) -> None:
    """Documented."""


async def unknown_type(a: "Missing") -> None:  # type: ignore[name-defined]  # noqa: F821
    """Documented."""


async def inexpressible(a: Callable[[], Awaitable[None]]) -> None:
    """Documented."""


class NotAStruct:
    """Documented."""


class WithoutRun(msgspec.Struct):
    """Documented."""


class RunTakesArguments(msgspec.Struct):
    """Documented."""

    async def run(self, a: int) -> None: ...


class ChoosesUser(msgspec.Struct):
    """Documented."""

    user: str

    async def run(self) -> None: ...


@pytest.mark.parametrize(
    ("definition", "why"),
    [
        (untyped, "'a' has no type"),
        (sync, "async def"),
        (variadic, r"\*a"),
        (positional, "no name of its own"),
        (undocumented, "docstring"),
        (misdocumented, "documents b"),
        (chooses_tenant, "workspace_id"),
        (unknown_type, "Missing"),
        (inexpressible, "Callable"),
        (NotAStruct, "msgspec.Struct"),
        (WithoutRun, "async def run"),
        (RunTakesArguments, "RunTakesArguments.run"),
        (ChoosesUser, "user"),
    ],
)
def test_definition_that_cannot_work_is_refused_at_import(definition: Any, why: str) -> None:
    """A definition that could not work raises when its module is imported, and says what is wrong."""
    with pytest.raises(ToolDefinitionError, match=why) as refused:
        tool(definition)
    assert definition.__qualname__ in str(refused.value)


@pytest.mark.parametrize("name", ["", "a b", "größe", "x" * 65, "a.b", "a\n"])
def test_bad_name_is_refused(name: str) -> None:
    """A name that a provider would refuse is refused at import."""
    with pytest.raises(ToolDefinitionError, match="name"):
        tool(name=name)(misdocumented)


def test_unknown_effect_is_refused() -> None:
    """It promises nothing that the worker knows."""
    with pytest.raises(ToolDefinitionError, match="effect"):
        tool(effect=cast(Effect, "sometimes"))(chooses_tenant)


async def _writes(context: TransactionContext) -> None:
    """Writes to the database."""


async def _reads(context: ReadContext) -> None:
    """Reads from the database."""


async def _does_neither(context: ToolContext) -> None:
    """Has nothing to do with the database."""


@pytest.mark.parametrize(
    ("definition", "effect"),
    [
        (_writes, Effect.READ),
        (_writes, Effect.IDEMPOTENT),
        (_writes, Effect.AT_MOST_ONCE),
        (_reads, Effect.TRANSACTIONAL),
        (_reads, Effect.AT_MOST_ONCE),
        (_does_neither, Effect.TRANSACTIONAL),
    ],
)
def test_effect_that_the_context_does_not_keep_is_refused(definition: Any, effect: Effect) -> None:
    """Exactly once is promised by who writes in the transaction of the result, and by nobody else."""
    with pytest.raises(ToolDefinitionError, match="context"):
        tool(effect=effect)(definition)


@pytest.mark.parametrize("timeout_s", [0, -1])
def test_time_limit_that_leaves_no_time_is_refused(timeout_s: float) -> None:
    """A time limit must leave some time."""
    with pytest.raises(ToolDefinitionError, match="timeout_s"):
        tool(timeout_s=timeout_s)(chooses_tenant)


def test_second_tool_of_one_name_in_a_module_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tools of one name in a module are an error, though the second would hide the first."""
    source = (
        "from worker.tools.base import tool\n"
        "@tool\nasync def twice() -> str:\n    'One.'\n    return '1'\n"
        "@tool\nasync def twice() -> str:\n    'Two.'\n    return '2'\n"
    )
    module = ModuleType("module_with_a_duplicate")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    with pytest.raises(ToolDefinitionError, match="'twice' is already defined"):
        exec(source, vars(module))


def test_idempotency_key_belongs_to_one_call() -> None:
    """The key is the same for one call of one run and differs for any other."""
    run, other = UUID(int=1), UUID(int=2)
    assert idempotency_key(run, "call_a") == idempotency_key(run, "call_a")
    assert len({idempotency_key(run, "call_a"), idempotency_key(run, "call_b"), idempotency_key(other, "call_a")}) == 3
