"""Finds the tools of this worker: the built-in ones and the user's own module."""

import importlib
import re

from common.config import ConfigError
from worker.tools import TOOLS
from worker.tools.base import Tool

_MODULE = re.compile(r"\w+(\.\w+)*")


def load_tools(module_name: str) -> dict[str, Tool]:
    """The built-in tools and those that the module named in TOOLS_MODULE holds or imports, by name.

    An empty name adds none. Raises ConfigError when the module cannot be imported, holds no tool, or when two
    tools bear one name.
    """
    tools = dict(TOOLS)
    if module_name:
        for tool in _find(module_name):
            if tools.setdefault(tool.name, tool) is not tool:
                raise ConfigError(f"TOOLS_MODULE: {module_name} has a second tool named {tool.name!r}")
    return tools


def _find(module_name: str) -> list[Tool]:
    if not _MODULE.fullmatch(module_name):
        raise ConfigError(f"TOOLS_MODULE: {module_name!r} is no module name; write it as in an import: package.module")
    try:
        module = importlib.import_module(module_name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise ConfigError(f"TOOLS_MODULE: importing {module_name} failed: {type(error).__name__}: {error}") from error
    found = [value for value in vars(module).values() if isinstance(value, Tool)]
    if not found:
        raise ConfigError(f"TOOLS_MODULE: {module_name} holds no tool; did you write @tool above the function?")
    return found
