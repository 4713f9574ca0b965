"""From a definition to the struct of its arguments and the JSON schema that the model gets."""

import inspect
import re
import typing
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import msgspec

_ARGS_SECTION = re.compile(r"^Args:[ \t]*\n((?:[ \t]+.*\n?|[ \t]*\n)*)", re.MULTILINE)
_ARG = re.compile(r"(\w+)(?:\s*\([^)]*\))?:\s*(.*)")
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class ToolDefinitionError(Exception):
    """A tool is written in a way that cannot work; raised when its module is imported."""


class Signature(NamedTuple):
    """`run(arguments, context)` calls what was defined, with the context where it asks for one: of type `context`."""

    arguments: type[msgspec.Struct]
    context: Any
    run: Callable[[Any, Any], Awaitable[Any]]


def read_function(function: Callable[..., Awaitable[Any]], context_type: type) -> Signature:
    """The signature of a typed async function. Raises ToolDefinitionError."""
    label = _label(function)
    context_name, context, parameters = _split(function, context_type)
    names = [parameter.name for parameter in parameters]
    _refuse_context_names(label, names, context_type)
    hints = _hints(function)
    fields: list[Any] = [
        (name, hints[name]) if parameter.default is parameter.empty else (name, hints[name], parameter.default)
        for name, parameter in zip(names, parameters, strict=True)
    ]
    try:
        struct = msgspec.defstruct(function.__name__, fields, kw_only=True, forbid_unknown_fields=True)
    except (TypeError, ValueError) as error:
        raise ToolDefinitionError(f"{label}: {error}") from error

    def run(arguments: Any, given_context: Any) -> Awaitable[Any]:
        given = {name: getattr(arguments, name) for name in names}
        if context_name is not None:
            given[context_name] = given_context
        return function(**given)

    return Signature(struct, context, run)


def read_class(definition: type, context_type: type) -> Signature:
    """The signature of a msgspec.Struct with `async def run(self)` or `run(self, context)`."""
    label = _label(definition)
    if not issubclass(definition, msgspec.Struct):
        raise ToolDefinitionError(f"{label}: a tool class is a msgspec.Struct whose fields are the arguments")
    method = getattr(definition, "run", None)
    if method is None:
        raise ToolDefinitionError(f"{label}: a tool class has `async def run(self, context: ToolContext)`")
    context_name, context, others = _split(method, context_type)
    if [parameter.name for parameter in others] != ["self"]:
        raise ToolDefinitionError(f"{label}.run: takes `self` and at most a `context: ToolContext`")
    _refuse_context_names(label, definition.__struct_fields__, context_type)
    struct = msgspec.defstruct(definition.__name__, [], bases=(definition,), forbid_unknown_fields=True)

    def run(arguments: Any, given_context: Any) -> Awaitable[Any]:
        result: Awaitable[Any] = method(arguments, **({} if context_name is None else {context_name: given_context}))
        return result

    return Signature(struct, context, run)


def describe(definition: Any, arguments: type[msgspec.Struct]) -> tuple[str, dict[str, Any]]:
    """The description and the JSON schema of the parameters. Raises ToolDefinitionError."""
    label = _label(definition)
    description, documented = _read_docstring(definition)
    if not description:
        raise ToolDefinitionError(f"{label}: has no docstring; the model chooses a tool by its description")
    try:
        (reference,), components = msgspec.json.schema_components([arguments], ref_template="#/$defs/{name}")
    except TypeError as error:
        raise ToolDefinitionError(f"{label}: {error}") from error
    schema = components.pop(reference["$ref"].removeprefix("#/$defs/"))
    properties = schema["properties"]
    for field in msgspec.structs.fields(arguments):
        if field.name in documented:
            properties[field.encode_name].setdefault("description", documented.pop(field.name))
    if documented:
        raise ToolDefinitionError(f"{label}: the docstring documents {', '.join(documented)}, which it does not take")
    parameters = {key: schema[key] for key in ("type", "properties", "required", "additionalProperties")}
    return description, parameters | ({"$defs": components} if components else {})


def _split(function: Callable[..., Any], context_type: type) -> tuple[str | None, type | None, list[inspect.Parameter]]:
    """The name and the type of the parameter that receives the context, and the others."""
    label = _label(function)
    if not inspect.iscoroutinefunction(function):
        raise ToolDefinitionError(f"{label}: must be `async def`; call blocking code with asyncio.to_thread")
    hints = _hints(function)
    context_name, context, others = None, None, []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind not in _NAMED:
            raise ToolDefinitionError(f"{label}: {parameter} has no name of its own that the model could use")
        if parameter.name not in hints and parameter.name != "self":
            raise ToolDefinitionError(f"{label}: the parameter {parameter.name!r} has no type")
        hint = hints.get(parameter.name)
        if inspect.isclass(hint) and issubclass(hint, context_type):
            context_name, context = parameter.name, hint
        else:
            others.append(parameter)
    return context_name, context, others


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except NameError as error:
        raise ToolDefinitionError(f"{_label(function)}: {error}") from error


def _refuse_context_names(label: str, names: typing.Iterable[str], context_type: Any) -> None:
    """The model must have no way to name a tenant, a user or another call."""
    for name in names:
        if name in context_type.__dataclass_fields__:
            raise ToolDefinitionError(
                f"{label}: the model must not choose {name!r}; read it from the ToolContext, or rename it"
            )


def _read_docstring(definition: Any) -> tuple[str, dict[str, str]]:
    """The text without its `Args:` section, and that section's entries; continuation lines are joined."""
    text = inspect.cleandoc(definition.__doc__ or "") + "\n"
    match = _ARGS_SECTION.search(text)
    if match is None:
        return text.strip(), {}
    entries: dict[str, str] = {}
    section = inspect.cleandoc("\n" + match[1])
    for line in section.splitlines():
        entry = _ARG.fullmatch(line)
        if entry:
            entries[entry[1]] = entry[2]
        elif entries and line.strip():
            last = next(reversed(entries))
            entries[last] = f"{entries[last]} {line.strip()}".strip()
    return (text[: match.start()] + text[match.end() :]).strip(), entries


def _label(definition: Any) -> str:
    return f"{definition.__module__}.{definition.__qualname__}"
