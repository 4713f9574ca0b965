-- What is outdated is found across all workspaces, and removed within each: the functions below return ids and times, and
-- the deletions are ordinary transactions of throughline_app, for which row level security holds.

-- Of a run that has ended, what it was made of and what its model was sent in its own form may be forgotten.
alter table runs add column details_removed_at timestamptz;
comment on column runs.details_removed_at is 'when what only a worker needs of the run was removed';
create index runs_with_details on runs (finished_at, id) where finished_at is not null and details_removed_at is null;
create index conversations_deleted on conversations (deleted_at, id) where deleted_at is not null;
create index documents_deleted on documents (deleted_at, id) where deleted_at is not null;
-- For the cascade from messages, which else reads all calls of the workspace for each of them.
create index tool_calls_of_message on tool_calls (workspace_id, message_id);

create or replace function refuse_change_of_terminal_run() returns trigger language plpgsql as $$
begin
    -- Superseding marks finished runs too.
    old.superseded_at := new.superseded_at;
    -- Housekeeping empties these, once; nothing may take their place.
    if old.details_removed_at is null and new.details_removed_at is not null then
        old.details_removed_at := new.details_removed_at;
        old.instructions := '';
        old.tools := '{}';
        old.settings := '{}';
    end if;
    if new is distinct from old then
        raise exception 'run % has ended and is immutable', old.id using errcode = 'integrity_constraint_violation';
    end if;
    return new;
end
$$;

-- When the next round is due; whoever moves it does the round.
create table housekeeping (
    only_one boolean primary key default true check (only_one),
    due_at timestamptz not null default clock_timestamp()
);
insert into housekeeping default values;
alter table housekeeping enable row level security, force row level security;
create policy everyone on housekeeping to throughline_app using (true) with check (true);
revoke all on housekeeping from public;
grant select, update on housekeeping to throughline_app;

-- A process may look whether the database is as it needs it.
grant select on schema_migrations to throughline_app;

-- Across workspaces ---------------------------------------------------------------------------------------------
grant select (details_removed_at) on runs to throughline_scheduler;
do $$
declare
    name text;
begin
    foreach name in array array['conversations', 'idempotency_keys', 'tickets']
    loop
        execute format('create policy scheduling on %I for select to throughline_scheduler using (true)', name);
    end loop;
end
$$;
grant select (workspace_id, id, deleted_at) on conversations to throughline_scheduler;
grant select (workspace_id, created_at) on idempotency_keys to throughline_scheduler;
grant select (workspace_id, expires_at) on tickets to throughline_scheduler;

grant create on schema public to throughline_scheduler;
set local role throughline_scheduler;

-- Runs that ended longer than p_age ago and still have their details, oldest first, after (p_after, p_after_id).
create function find_runs_with_old_details(p_age interval, p_after timestamptz, p_after_id uuid, p_limit integer)
    returns table (moment timestamptz, workspace_id uuid, id uuid)
    language sql volatile security definer set search_path = pg_catalog, public, pg_temp
as $$
    select r.finished_at, r.workspace_id, r.id from runs r
    where r.finished_at is not null and r.details_removed_at is null
      and r.finished_at < (select clock_timestamp()) - p_age and (r.finished_at, r.id) > (p_after, p_after_id)
    order by r.finished_at, r.id
    limit p_limit
$$;

-- Conversations that were deleted longer than p_age ago, oldest first, after (p_after, p_after_id).
create function find_deleted_conversations(p_age interval, p_after timestamptz, p_after_id uuid, p_limit integer)
    returns table (moment timestamptz, workspace_id uuid, id uuid)
    language sql volatile security definer set search_path = pg_catalog, public, pg_temp
as $$
    select c.deleted_at, c.workspace_id, c.id from conversations c
    where c.deleted_at is not null
      and c.deleted_at < (select clock_timestamp()) - p_age and (c.deleted_at, c.id) > (p_after, p_after_id)
    order by c.deleted_at, c.id
    limit p_limit
$$;

-- The same for documents.
create function find_deleted_documents(p_age interval, p_after timestamptz, p_after_id uuid, p_limit integer)
    returns table (moment timestamptz, workspace_id uuid, id uuid)
    language sql volatile security definer set search_path = pg_catalog, public, pg_temp
as $$
    select d.deleted_at, d.workspace_id, d.id from documents d
    where d.deleted_at is not null
      and d.deleted_at < (select clock_timestamp()) - p_age and (d.deleted_at, d.id) > (p_after, p_after_id)
    order by d.deleted_at, d.id
    limit p_limit
$$;

-- The workspaces of the oldest idempotency keys that hold no longer.
create function find_workspaces_of_old_keys(p_age interval, p_limit integer)
    returns table (workspace_id uuid)
    language sql volatile security definer set search_path = pg_catalog, public, pg_temp
as $$
    select distinct old.workspace_id from (
        select k.workspace_id from idempotency_keys k
        where k.created_at < (select clock_timestamp()) - p_age
        order by k.created_at limit p_limit) old
$$;

-- The workspaces of the tickets that ended first.
create function find_workspaces_of_old_tickets(p_limit integer)
    returns table (workspace_id uuid)
    language sql volatile security definer set search_path = pg_catalog, public, pg_temp
as $$
    select distinct old.workspace_id from (
        select t.workspace_id from tickets t
        where t.expires_at < (select clock_timestamp())
        order by t.expires_at limit p_limit) old
$$;

-- How the queue stands in all workspaces together; ages in seconds, null where there is none. A run that is due waits
-- since `available_at`, a lease is forgotten since it ran out, a waiting run without one before it since never.
create function describe_queue()
    returns table (due bigint, oldest_due_s double precision, running bigint, expired bigint,
                   oldest_expired_s double precision, waiting bigint, forgotten bigint)
    language sql volatile security definer set search_path = pg_catalog, public, pg_temp
as $$
    select
        q.due, q.oldest_due_s, l.running, l.expired, l.oldest_expired_s,
        (select count(*) from runs w where w.state = 'waiting'),
        (select count(distinct (w.workspace_id, w.conversation_id)) from runs w
         where w.state = 'waiting' and not exists (
             select from runs a where a.workspace_id = w.workspace_id and a.conversation_id = w.conversation_id
                                  and a.state in ('queued', 'running', 'paused')))
    from (select count(*) as due, extract(epoch from (clock_timestamp() - min(r.available_at)))::float8 as oldest_due_s
          from runs r where r.state = 'queued' and r.available_at <= (select clock_timestamp())) q,
         (select count(*) as running, count(*) filter (where r.lease_until < clock_timestamp()) as expired,
                 extract(epoch from (clock_timestamp() - min(r.lease_until)
                         filter (where r.lease_until < clock_timestamp())))::float8 as oldest_expired_s
          from runs r where r.state = 'running') l
$$;

reset role;
revoke create on schema public from throughline_scheduler;
revoke all on function find_runs_with_old_details, find_deleted_conversations, find_deleted_documents,
    find_workspaces_of_old_keys, find_workspaces_of_old_tickets, describe_queue from public;
grant execute on function find_runs_with_old_details, find_deleted_conversations, find_deleted_documents,
    find_workspaces_of_old_keys, find_workspaces_of_old_tickets, describe_queue to throughline_app;
