-- What operators have set for a workspace in place of the settings' limits. A row per limit: versions that run side by
-- side know different ones.
create table workspace_limits (
    workspace_id uuid not null,
    name text not null,
    value bigint not null check (value >= 0),
    updated_at timestamptz not null default clock_timestamp(),
    primary key (workspace_id, name)
);
alter table workspace_limits enable row level security, force row level security;
create policy workspace on workspace_limits to throughline_app
    using (workspace_id = (select current_workspace()))
    with check (workspace_id = (select current_workspace()));
revoke all on workspace_limits from public;
grant select, insert, update, delete on workspace_limits to throughline_app;

-- What waits to be run, counted with each new run.
create index runs_not_begun on runs (workspace_id, created_by) where state in ('waiting', 'queued');
