"""Databases that a test has used, made as good as new: much cheaper than a new one for each test."""

from typing import NamedTuple, Self

import asyncpg

from tests.support.eventually import eventually

# Whatever a test may have changed but rows. Updates in place, such as the planner's figures, leave xmin as it is.
_SCHEMA = """
select md5(string_agg(found.line, ',' order by found.line)) from (
    select 'class ' || oid || ' ' || xmin as line from pg_class where relnamespace = 'public'::regnamespace
    union all select 'proc ' || oid || ' ' || xmin from pg_proc where pronamespace = 'public'::regnamespace
    union all select 'policy ' || oid || ' ' || xmin from pg_policy
    union all select 'trigger ' || oid || ' ' || xmin from pg_trigger
    union all select 'constraint ' || oid || ' ' || xmin from pg_constraint where connamespace = 'public'::regnamespace
    union all select 'column ' || attrelid || ' ' || attnum || ' ' || a.xmin from pg_attribute a
        join pg_class c on c.oid = a.attrelid where c.relnamespace = 'public'::regnamespace
    union all select 'setting ' || d.oid || ' ' || s.xmin from pg_db_role_setting s
        join pg_database d on d.oid = s.setdatabase where d.datname = current_database()
) found
"""
_OTHERS = "select pid from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"


class Pristine(NamedTuple):
    """How a database is before any test: its tables, and the rows of those that have some, as JSON."""

    schema: str
    tables: list[str]
    rows: dict[str, str]

    @classmethod
    async def of(cls, url: str) -> Self:
        """Looks at the database at `url`, as a superuser."""
        connection = await asyncpg.connect(url)
        try:
            schema = await connection.fetchval(_SCHEMA)
            tables = await connection.fetch("select tablename from pg_tables where schemaname = 'public'")
            names = [str(name) for (name,) in tables]
            rows = {name: await connection.fetchval(f"select json_agg(t) from {name} t") for name in names}
        finally:
            await connection.close()
        return cls(schema, names, {name: found for name, found in rows.items() if found is not None})

    async def restore(self, url: str) -> bool:
        """Ends all connections and puts the rows back; False when more than rows was changed."""
        connection = await asyncpg.connect(url)
        try:
            await connection.execute(f"select pg_terminate_backend(pid) from ({_OTHERS}) others")

            async def is_alone() -> bool:
                return not await connection.fetch(_OTHERS)

            await eventually(is_alone)
            if await connection.fetchval(_SCHEMA) != self.schema:
                return False
            await self._put_rows_back(connection)
        finally:
            await connection.close()
        return True

    async def _put_rows_back(self, connection: asyncpg.Connection) -> None:
        async with connection.transaction():
            # Neither foreign keys nor triggers: each table is emptied by itself.
            await connection.execute("set local session_replication_role = replica")
            await connection.execute(";".join(f"delete from {name}" for name in self.tables))
            for name, rows in self.rows.items():
                await connection.execute(
                    f"insert into {name} select * from json_populate_recordset(null::{name}, $1)",
                    rows,
                )
