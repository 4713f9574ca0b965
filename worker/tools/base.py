"""What a tool is: a name, a description, a schema, an effect class, and something to await.

`@tool` makes one of a typed async function or of a msgspec.Struct with `async def run`. The worker runs it
through `worker.tools.execute`, which turns whatever happens into an answer for the model.
"""

import hashlib
import hmac
import inspect
import re
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar, overload
from uuid import UUID

import msgspec

from common.model.run_state import Effect
from worker.tools.arguments import ToolDefinitionError, describe, read_class, read_function

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}", re.ASCII)

Definition = Callable[..., Awaitable[Any]] | type[msgspec.Struct]


class Access(Enum):
    """What a tool does with our own database, which the type of its context says."""

    NONE = "none"
    READS = "reads"
    WRITES = "writes"


class ToolError(Exception):
    """Raised by a tool to answer the model with a failure, in the tool's own words."""


class InvalidArguments(Exception):
    """The model's arguments do not fit the schema; the message is for the model and names the field."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolContext:
    """What the server knows about a call. A tool takes tenant and user from here, never from its arguments.

    `idempotency_key` is the same each time this call is run, whatever crashed before; `attempt` is not.
    A tool asks for it by a parameter of this type, or of a subclass that a later kind of tool may need.
    """

    run_id: UUID
    conversation_id: UUID
    workspace_id: UUID
    user: str
    tool_call_id: str
    idempotency_key: str
    attempt: int
    access: ClassVar[Access] = Access.NONE


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Tool:
    """A tool as the model sees it (name, description, parameters) and as the worker runs it.

    `timeout_s` is None where the worker's TOOL_TIMEOUT_S applies.
    """

    name: str
    description: str
    parameters: dict[str, Any]
    effect: Effect
    timeout_s: float | None
    access: Access
    _arguments: type[msgspec.Struct] = field(repr=False)
    _run: Callable[[Any, ToolContext], Awaitable[Any]] = field(repr=False)

    def validate(self, arguments: dict[str, Any]) -> msgspec.Struct:
        """The arguments as the tool's own types. Raises InvalidArguments; unknown fields are refused."""
        try:
            return msgspec.convert(arguments, self._arguments, str_keys=True)
        except msgspec.ValidationError as error:
            raise InvalidArguments(f"Invalid arguments for {self.name}: {error}") from None

    async def call(self, arguments: msgspec.Struct, context: ToolContext) -> str:
        """Runs the tool with what `validate` returned. A string passes, any other result becomes JSON.

        Raises whatever the tool raises, and TypeError for a result that JSON cannot hold.
        """
        result = await self._run(arguments, context)
        return result if isinstance(result, str) else msgspec.json.encode(result).decode()


@overload
def tool(definition: Definition, /) -> Tool: ...


@overload
def tool(
    *, effect: Effect = Effect.AT_MOST_ONCE, timeout_s: float | None = None, name: str | None = None
) -> Callable[[Definition], Tool]: ...


def tool(
    definition: Definition | None = None,
    /,
    *,
    effect: Effect = Effect.AT_MOST_ONCE,
    timeout_s: float | None = None,
    name: str | None = None,
) -> Tool | Callable[[Definition], Tool]:
    """Makes a Tool of a typed async function, or of a msgspec.Struct whose fields are the arguments.

    The docstring is the description, its `Args:` section documents the parameters. Without a declared effect
    a tool counts as `at_most_once`: after a crash in mid-call it is not run again. A tool that could not work
    raises ToolDefinitionError, when its module is imported.
    """
    if definition is not None:
        return _define(definition, effect, timeout_s, name)
    return lambda definition: _define(definition, effect, timeout_s, name)


def idempotency_key(run_id: UUID, tool_call_id: str) -> str:
    """The key of one call, equal on every repetition of it and of no other call."""
    return hmac.new(run_id.bytes, tool_call_id.encode(), hashlib.sha256).hexdigest()


def _define(definition: Definition, effect: Effect, timeout_s: float | None, name: str | None) -> Tool:
    label = f"{definition.__module__}.{definition.__qualname__}"
    name = definition.__name__ if name is None else name
    _check(definition, label, name, effect, timeout_s)
    if inspect.isclass(definition):
        signature = read_class(definition, ToolContext)
    else:
        signature = read_function(definition, ToolContext)
    access = Access.NONE if signature.context is None else signature.context.access
    _check_access(label, Effect(effect), access)
    description, parameters = describe(definition, signature.arguments)
    return Tool(
        name=name,
        description=description,
        parameters=parameters,
        effect=Effect(effect),
        timeout_s=timeout_s,
        access=access,
        _arguments=signature.arguments,
        _run=signature.run,
    )


def _check(definition: Definition, label: str, name: str, effect: Effect, timeout_s: float | None) -> None:
    if not _NAME.fullmatch(name):
        raise ToolDefinitionError(f"{label}: the name {name!r} must match ^[a-zA-Z0-9_-]{{1,64}}$")
    if effect not in tuple(Effect):
        raise ToolDefinitionError(f"{label}: the effect {effect!r} is none of {', '.join(Effect)}")
    if timeout_s is not None and timeout_s <= 0:
        raise ToolDefinitionError(f"{label}: timeout_s must be more than 0 seconds")
    if "<locals>" not in definition.__qualname__:
        _refuse_duplicate(definition, label, name)


def _check_access(label: str, effect: Effect, access: Access) -> None:
    if (effect is Effect.TRANSACTIONAL) != (access is Access.WRITES):
        raise ToolDefinitionError(f"{label}: a transactional tool takes a `context: TransactionContext`, others do not")
    if access is Access.READS and effect is not Effect.READ:
        raise ToolDefinitionError(f"{label}: a tool that takes a `context: ReadContext` has the effect `read`")


def _refuse_duplicate(definition: Definition, label: str, name: str) -> None:
    """A second tool of the same name would silently replace the first in the module's namespace."""
    siblings = vars(sys.modules.get(definition.__module__, object)).values()
    if any(isinstance(sibling, Tool) and sibling.name == name for sibling in siblings):
        raise ToolDefinitionError(f"{label}: a tool named {name!r} is already defined in this module")
