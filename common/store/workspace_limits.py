"""What operators have set for a workspace in place of the settings' limits; the limits' names are of `Limits`."""

from collections.abc import Mapping, Sequence

from common.store.database import Connection, Pool


async def select_limits(connection: Connection) -> dict[str, int]:
    """Those that were set for this workspace; a newer version may have written names that are unknown here."""
    rows = await connection.fetch("select name, value from workspace_limits")
    return {row["name"]: row["value"] for row in rows}


async def upsert_limits(connection: Connection, values: Mapping[str, int]) -> None:
    """Sets these, and leaves the others as they are."""
    await connection.execute(
        """
        insert into workspace_limits (workspace_id, name, value)
        select current_workspace(), * from unnest($1::text[], $2::bigint[])
        on conflict (workspace_id, name) do update set value = excluded.value, updated_at = clock_timestamp()
        """,
        list(values),
        list(values.values()),
    )


async def delete_limits(connection: Connection, names: Sequence[str]) -> None:
    """For these the settings' hold again."""
    await connection.execute("delete from workspace_limits where name = any ($1)", list(names))


async def upsert_default(pool: Pool, name: str, value: int) -> None:
    """What the settings say of a limit that Postgres itself keeps; the last one to say so counts."""
    await pool.execute(
        """
        insert into default_limits as d (name, value) values ($1, $2)
        on conflict (name) do update set value = excluded.value, updated_at = clock_timestamp()
        where d.value <> excluded.value
        """,
        name,
        value,
    )
