"""The limits of one workspace, as operators see and set them."""

from collections.abc import Mapping, Sequence
from uuid import UUID

from common.config import Settings
from common.limits import default_limits
from common.model.limits import Limits
from common.store.database import open_pool, workspace_transaction
from common.store.workspace_limits import delete_limits, select_limits, upsert_limits


async def read_limits(settings: Settings, workspace_id: UUID) -> dict[str, int]:
    """Those that were set for this workspace. Raises one of DATABASE_DOWN."""
    async with (
        await open_pool(settings, size=1) as pool,
        workspace_transaction(pool, workspace_id) as connection,
    ):
        return await select_limits(connection)


async def change_limits(settings: Settings, workspace_id: UUID, new: Mapping[str, int], reset: Sequence[str]) -> None:
    """Sets these, and takes back what was set for those in `reset`. Raises one of DATABASE_DOWN."""
    async with (
        await open_pool(settings, size=1) as pool,
        workspace_transaction(pool, workspace_id) as connection,
    ):
        await upsert_limits(connection, new)
        await delete_limits(connection, reset)


def tell_limits(settings: Settings, own: Mapping[str, int]) -> str:
    """A line for each limit: its name, its value, and the settings' where this workspace has another."""
    defaults = default_limits(settings)
    width = max(map(len, Limits.__struct_fields__))
    lines = []
    for name in Limits.__struct_fields__:
        default = getattr(defaults, name)
        value = own.get(name, default)
        lines.append(
            f"{name:{width}}  {value or 'none'}" + (f"  (default: {default or 'none'})" if name in own else "")
        )
    return "\n".join(lines)
