"""The built-in tools, by name."""

from worker.tools.base import Tool
from worker.tools.current_time import current_time
from worker.tools.documents import DOCUMENT_TOOLS

TOOLS: dict[str, Tool] = {tool.name: tool for tool in (current_time, *DOCUMENT_TOOLS)}
