-- A workspace may have a cap of runs that are running at once: claims pass over what is beyond it.
--
-- The cap is `running_runs` of `workspace_limits`, and where there is none that of the settings, which claims cannot
-- read: workers write it here when they start.
create table default_limits (
    name text primary key,
    value bigint not null check (value >= 0),
    updated_at timestamptz not null default clock_timestamp()
);
alter table default_limits enable row level security, force row level security;
create policy everyone on default_limits to throughline_app using (true) with check (true);
create policy scheduling on default_limits for select to throughline_scheduler using (true);
revoke all on default_limits from public;
grant select, insert, update, delete on default_limits to throughline_app;
grant select on default_limits to throughline_scheduler;

create policy scheduling on workspace_limits for select to throughline_scheduler using (true);
grant select (workspace_id, name, value) on workspace_limits to throughline_scheduler;
create index caps_of_running_runs on workspace_limits (workspace_id) where name = 'running_runs' and value > 0;

grant create on schema public to throughline_scheduler;
set local role throughline_scheduler;

-- Whether there is a cap at all: where there is none, this is all that caps cost.
create function runs_are_capped() returns boolean
    language plpgsql stable set search_path = pg_catalog, public, pg_temp set enable_seqscan = off
as $$
begin
    return exists (select from workspace_limits l where l.name = 'running_runs' and l.value > 0)
        or exists (select from default_limits d where d.name = 'running_runs' and d.value > 0);
end
$$;

-- How many more runs the workspace may have running; null where it has no cap.
create function room_for_runs(p_workspace uuid) returns bigint
    language plpgsql stable set search_path = pg_catalog, public, pg_temp
    -- The plan outlives whatever the statistics say of runs that come and go.
    set plan_cache_mode = force_generic_plan set enable_seqscan = off
as $$
declare
    cap bigint := coalesce(
        (select l.value from workspace_limits l where l.workspace_id = p_workspace and l.name = 'running_runs'),
        (select d.value from default_limits d where d.name = 'running_runs'), 0);
begin
    if cap = 0 then
        return null;
    end if;
    return cap - (select count(*) from runs r where r.state = 'running' and r.workspace_id = p_workspace);
end
$$;

-- The same, and until the transaction is over nobody else claims in that workspace: what was counted stays true. Who does
-- not wait (p_wait) while somebody else claims there is told 0.
create function hold_room_for_runs(p_workspace uuid, p_wait boolean) returns bigint
    language plpgsql volatile set search_path = pg_catalog, public, pg_temp
as $$
declare
    lock constant bigint := hashtextextended('running runs ' || p_workspace, 0);
begin
    if room_for_runs(p_workspace) is null then
        return null;
    end if;
    if p_wait then
        perform pg_advisory_xact_lock(lock);
    elsif not pg_try_advisory_xact_lock(lock) then
        return 0;
    end if;
    -- Counted once the lock is there: who had it before has committed.
    return room_for_runs(p_workspace);
end
$$;

-- Which due runs come next, at least p_wanted where there are so many, looking at most p_depth deep into a line: the
-- interactive before the background ones; among equals those of the workspace that has the fewest runs running,
-- counting those named here before; then the one that has been due for longest. A workspace at its cap has none.
-- A background run that has been due for a minute stands with the interactive ones, as long as background runs have
-- less than a tenth of the places in use and the p_wanted together.
--
-- Of the runs in a line only the first one is looked at, and p_depth where the workspace may be among the next: so it
-- takes as long as workspaces have lines, however long these are.
create or replace function next_runs(p_wanted integer, p_depth integer, p_priorities smallint[])
    returns table (run_id uuid)
    language plpgsql volatile security definer set search_path = pg_catalog, public, pg_temp
    -- One plan for all: every row is found by an index, whatever the statistics say of lines that come and go.
    set plan_cache_mode = force_generic_plan set jit = off
    set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
    capped constant boolean := runs_are_capped();
begin
    return query
    with recursive line as (
        select p.priority, head.workspace_id, head.available_at
        from unnest(p_priorities) as p (priority) cross join lateral (
            select r.workspace_id, r.available_at from runs r
            where r.state = 'queued' and r.cancel_requested_at is null and r.priority = p.priority
            order by r.workspace_id, r.available_at limit 1) head
        union all
        select l.priority, head.workspace_id, head.available_at
        from line l cross join lateral (
            select r.workspace_id, r.available_at from runs r
            where r.state = 'queued' and r.cancel_requested_at is null and r.priority = l.priority
              and r.workspace_id > l.workspace_id
            order by r.workspace_id, r.available_at limit 1) head
    ), due as materialized (
        select l.priority, l.workspace_id, l.available_at,
               l.priority > 0 and l.available_at < clock_timestamp() - interval '1 minute' as patient
        from line l where l.available_at <= clock_timestamp()
          and case when capped then coalesce(room_for_runs(l.workspace_id), 1) > 0 else true end
    ), share as materialized (
        select case when count(distinct d.priority) > 1 and bool_or(d.patient) then (
            select ceil((count(*) + p_wanted) / 10.0) - count(*) filter (where r.priority > 0)
            from runs r where r.state = 'running') else 0 end as places
        from due d
    ), loaded as (
        select d.*, case when count(*) over () > 1 then (
            select count(*) from runs r where r.state = 'running' and r.workspace_id = d.workspace_id) end as running
        from due d
    ), first_of_workspaces as (
        select l.*, row_number() over (partition by l.priority, l.patient order by l.running, l.available_at) as place
        from loaded l
    ), candidates as (
        select w.priority, w.workspace_id, r.id, r.available_at, coalesce(w.running, 0) as running,
               w.priority > 0 and r.available_at < clock_timestamp() - interval '1 minute' as patient,
               row_number() over (partition by w.priority, w.workspace_id order by r.available_at, r.id) as nth
        from first_of_workspaces w cross join lateral (
            select r.id, r.available_at from runs r
            where r.state = 'queued' and r.cancel_requested_at is null and r.priority = w.priority
              and r.workspace_id = w.workspace_id and r.available_at <= clock_timestamp()
            order by r.available_at limit p_depth) r
        where w.place <= p_depth
    ), classed as (
        select c.*, case when c.patient and share.places >= row_number() over (
            partition by c.patient order by c.running + c.nth, c.available_at, c.id) then 0 else c.priority end as class
        from candidates c cross join share
    )
    select c.id from classed c
    order by c.class,
             c.running + row_number() over (partition by c.workspace_id order by c.class, c.available_at, c.id),
             c.available_at, c.id;
end
$$;

-- Takes up to p_limit due runs of these priorities for p_owner, in the order of `next_runs`; a run with a cancel
-- request is left to the sweep, one beyond its workspace's cap in the line. A run that somebody else holds is passed
-- over: who finds the first ones taken looks further down the lines.
create or replace function claim_runs(p_owner text, p_lease interval, p_limit integer, p_priorities smallint[])
    returns table (workspace_id uuid, run_id uuid, attempt bigint, priority smallint)
    language plpgsql volatile security definer set search_path = pg_catalog, public, pg_temp
    set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    capped constant boolean := runs_are_capped();
    wanted integer := p_limit;
    depth integer := p_limit + 8;
    candidates uuid[];
    candidate uuid;
    of_workspace uuid;
    rooms jsonb := '{}';
    room bigint;
    is_due boolean;
    taken uuid[];
begin
    for round in 1..3 loop
        -- Where all get their turn at once, nobody has to be put in order.
        candidates := array(
            select r.id from runs r
            where r.state = 'queued' and r.cancel_requested_at is null and r.priority = any (p_priorities)
              and r.available_at <= clock_timestamp()
            limit wanted + 1);
        if cardinality(candidates) > wanted or capped and cardinality(candidates) > 0 then
            candidates := array(select n.run_id from next_runs(wanted, depth, p_priorities) n);
        end if;
        if capped and round = 1 then
            -- Who waits for several workspaces does so in the order of their ids, and who has one that is not among
            -- these waits for none: so no two claims wait for each other.
            for of_workspace in
                select distinct r.workspace_id from runs r where r.id = any (candidates[1:wanted]) order by 1
            loop
                rooms := rooms || jsonb_build_object(of_workspace, hold_room_for_runs(of_workspace, true));
            end loop;
        end if;
        taken := '{}';
        foreach candidate in array candidates loop
            exit when cardinality(taken) >= wanted;
            -- Its state is looked at once it is locked: somebody may have had it first.
            select r.workspace_id, r.state = 'queued' and r.cancel_requested_at is null into of_workspace, is_due
            from runs r where r.id = candidate
            for no key update skip locked;
            if is_due and capped then
                if not rooms ? of_workspace::text then
                    rooms := rooms || jsonb_build_object(of_workspace, hold_room_for_runs(of_workspace, false));
                end if;
                room := rooms ->> of_workspace::text;
                is_due := coalesce(room, 1) > 0;
                rooms := rooms || jsonb_build_object(of_workspace, room - is_due::integer);
            end if;
            if is_due then
                taken := taken || candidate;
            end if;
        end loop;
        return query
            update runs r
            set state = 'running', attempt = r.attempt + 1, claimed_attempt = r.attempt + 1, lease_owner = p_owner,
                lease_until = clock_timestamp() + p_lease, claimed_at = clock_timestamp(), open_tool_calls = 0,
                started_at = coalesce(r.started_at, clock_timestamp())
            where r.id = any (taken)
            returning r.workspace_id, r.id, r.attempt, r.priority;
        exit when cardinality(taken) >= least(wanted, cardinality(candidates));
        wanted := wanted - cardinality(taken);
        depth := depth * 8;
    end loop;
end
$$;

-- The workspace's run that is to be claimed next, if one is due.
create function find_next_run(p_workspace uuid)
    returns table (run_id uuid, priority smallint)
    language sql stable security definer set search_path = pg_catalog, public, pg_temp
as $$
    select first.id, p.priority
    from unnest('{0,1}'::smallint[]) as p (priority) cross join lateral (
        select r.id from runs r
        where r.state = 'queued' and r.cancel_requested_at is null and r.priority = p.priority
          and r.workspace_id = p_workspace and r.available_at <= clock_timestamp()
        order by r.available_at limit 1) first
    order by p.priority limit 1
$$;

-- How the runs of each priority stand that have not ended. Of the queued ones, `due` may be claimed now, the oldest of
-- these since `oldest_due_s` seconds (null: there is none), and `held` might be, were their workspace not at its cap. Of
-- the running ones `expired` have a lease that ran out, the first one `oldest_expired_s` seconds ago.
create function measure_queue()
    returns table (priority smallint, queued bigint, due bigint, held bigint, oldest_due_s double precision,
                   running bigint, expired bigint, oldest_expired_s double precision, waiting bigint)
    language sql volatile security definer set search_path = pg_catalog, public, pg_temp
as $$
    with line as materialized (
        select r.priority, r.workspace_id, count(*) as queued,
               count(*) filter (where r.available_at <= clock_timestamp()) as ripe, min(r.available_at) as first_at
        from runs r where r.state = 'queued' and r.cancel_requested_at is null group by r.priority, r.workspace_id
    ), room as materialized (
        select w.workspace_id, room_for_runs(w.workspace_id) as places
        from (select distinct l.workspace_id from line l where l.ripe > 0) w
        where runs_are_capped()
    ), filled as (
        -- The room is for the most urgent ones first.
        select l.*, case when room.places is null then 0 else greatest(0, least(l.ripe, sum(l.ripe) over (
            partition by l.workspace_id order by l.priority) - room.places)) end as held
        from line l left join room on room.workspace_id = l.workspace_id
    ), queued as (
        select f.priority, sum(f.queued) as queued, sum(f.ripe - f.held) as due, sum(f.held) as held,
               extract(epoch from clock_timestamp() - min(f.first_at) filter (where f.ripe > f.held)) as oldest_due_s
        from filled f group by f.priority
    ), running as (
        select r.priority, count(*) as running, count(*) filter (where r.lease_until < clock_timestamp()) as expired,
               extract(epoch from clock_timestamp() - min(r.lease_until)
                       filter (where r.lease_until < clock_timestamp())) as oldest_expired_s
        from runs r where r.state = 'running' group by r.priority
    ), waiting as (
        select r.priority, count(*) as waiting from runs r where r.state = 'waiting' group by r.priority
    )
    select priority, coalesce(q.queued, 0)::bigint, coalesce(q.due, 0)::bigint, coalesce(q.held, 0)::bigint,
           q.oldest_due_s::double precision, coalesce(n.running, 0), coalesce(n.expired, 0),
           n.oldest_expired_s::double precision, coalesce(w.waiting, 0)
    from queued q full join running n using (priority) full join waiting w using (priority)
$$;

-- For processes of the previous version.
create or replace function queue_depth()
    returns table (priority smallint, queued bigint, due bigint, oldest_due_s double precision, running bigint,
                   waiting bigint)
    language sql volatile security definer set search_path = pg_catalog, public, pg_temp
as $$
    select m.priority, m.queued, m.due, m.oldest_due_s, m.running, m.waiting from measure_queue() m
$$;
-- All priorities together, and how many conversations have a waiting run and nobody before it.
create or replace function describe_queue()
    returns table (due bigint, oldest_due_s double precision, running bigint, expired bigint,
                   oldest_expired_s double precision, waiting bigint, forgotten bigint)
    language sql volatile security definer set search_path = pg_catalog, public, pg_temp
as $$
    select coalesce(sum(m.due), 0)::bigint, max(m.oldest_due_s), coalesce(sum(m.running), 0)::bigint,
           coalesce(sum(m.expired), 0)::bigint, max(m.oldest_expired_s), coalesce(sum(m.waiting), 0)::bigint,
           (select count(*) from find_promotable(null))
    from measure_queue() m
$$;

-- Failed runs with one of these codes, the last one first, from before (p_finished_at, p_id) on. `outdated`: its turn was
-- answered anew, or others have come after it.
create function find_failed_runs(p_error_codes text[], p_finished_at timestamptz, p_id uuid, p_limit integer)
    returns table (workspace_id uuid, run_id uuid, conversation_id uuid, agent_id uuid, error_code text,
                   attempts bigint, crashes integer, created_at timestamptz, started_at timestamptz,
                   finished_at timestamptz, outdated boolean, details_removed boolean, conversation_deleted boolean,
                   new_run_id uuid, requeued_by text, requeued_at timestamptz)
    language sql stable security definer set search_path = pg_catalog, public, pg_temp
as $$
    with found as (
        select last.* from unnest(p_error_codes) as wanted (code) cross join lateral (
            select r.workspace_id, r.id, r.conversation_id, r.turn, r.agent_id, r.error_code, r.attempt, r.crashes_total,
                   r.created_at, r.started_at, r.finished_at, r.superseded_at, r.details_removed_at
            from runs r
            where r.state = 'failed' and r.error_code = wanted.code
              and (r.finished_at, r.id) < (coalesce(p_finished_at, 'infinity'),
                                           coalesce(p_id, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
            order by r.finished_at desc, r.id desc limit p_limit) last
        order by last.finished_at desc, last.id desc limit p_limit
    )
    select r.workspace_id, r.id, r.conversation_id, r.agent_id, r.error_code,
           -- Such a run is ended by the sweep alone, as an attempt of its own in which nobody has tried anything.
           r.attempt - (r.error_code = 'crash_loop')::integer, r.crashes_total,
           r.created_at, r.started_at, r.finished_at,
           r.superseded_at is not null
               or exists (select from runs l where l.workspace_id = r.workspace_id
                          and l.conversation_id = r.conversation_id and l.turn > r.turn),
           r.details_removed_at is not null,
           exists (select from conversations c where c.workspace_id = r.workspace_id and c.id = r.conversation_id
                                                 and c.deleted_at is not null),
           q.new_run_id, q.requeued_by, q.requeued_at
    from found r left join requeues q on q.workspace_id = r.workspace_id and q.run_id = r.id
    order by r.finished_at desc, r.id desc
$$;
-- For APIs of the previous version.
create or replace function list_failed_runs(p_error_codes text[], p_finished_at timestamptz, p_id uuid, p_limit integer)
    returns table (workspace_id uuid, run_id uuid, conversation_id uuid, agent_id uuid, error_code text, attempt bigint,
                   crashes integer, created_at timestamptz, started_at timestamptz, finished_at timestamptz,
                   outdated boolean, new_run_id uuid, requeued_by text, requeued_at timestamptz)
    language sql stable security definer set search_path = pg_catalog, public, pg_temp
as $$
    select f.workspace_id, f.run_id, f.conversation_id, f.agent_id, f.error_code, f.attempts, f.crashes, f.created_at,
           f.started_at, f.finished_at, f.outdated, f.new_run_id, f.requeued_by, f.requeued_at
    from find_failed_runs(p_error_codes, p_finished_at, p_id, p_limit) f
$$;

reset role;
revoke create on schema public from throughline_scheduler;
revoke all on function runs_are_capped, room_for_runs, hold_room_for_runs, find_next_run, measure_queue,
    find_failed_runs from public;
grant execute on function find_next_run, measure_queue, find_failed_runs to throughline_app;
