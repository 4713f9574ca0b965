-- Claims go round between workspaces, and tell interactive runs (priority 0) from background ones (priority 1).
alter table runs add constraint priority_is_known check (priority in (0, 1)) not valid;
create index runs_in_line on runs (priority, workspace_id, available_at)
    where state = 'queued' and cancel_requested_at is null;
create index runs_at_work on runs (workspace_id, priority) where state = 'running';
drop index runs_due;
drop index runs_running;

grant create on schema public to throughline_scheduler;
set local role throughline_scheduler;

-- Which due runs come next, at least p_wanted where there are so many, looking at most p_depth deep into a line: the
-- interactive before the background ones; among equals those of the workspace that has the fewest runs running,
-- counting those named here before; then the one that has been due for longest.
-- A background run that has been due for a minute stands with the interactive ones, as long as background runs have
-- less than a tenth of the places in use and the p_wanted together.
--
-- Of the runs in a line only the first one is looked at, and p_depth where the workspace may be among the next: so it
-- takes as long as workspaces have lines, however long these are.
create function next_runs(p_wanted integer, p_depth integer, p_priorities smallint[])
    returns table (run_id uuid)
    language plpgsql volatile security definer set search_path = pg_catalog, public, pg_temp
    -- One plan for all: every row is found by an index, whatever the statistics say of lines that come and go.
    set plan_cache_mode = force_generic_plan set jit = off
    set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
#variable_conflict use_column
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
-- request is left to the sweep. A run that somebody else holds is passed over: who finds the first ones taken looks
-- further down the lines.
create function claim_runs(p_owner text, p_lease interval, p_limit integer, p_priorities smallint[])
    returns table (workspace_id uuid, run_id uuid, attempt bigint, priority smallint)
    language plpgsql volatile security definer set search_path = pg_catalog, public, pg_temp
    set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    wanted integer := p_limit;
    depth integer := p_limit + 8;
    candidates uuid[];
    candidate uuid;
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
        if cardinality(candidates) > wanted then
            candidates := array(select n.run_id from next_runs(wanted, depth, p_priorities) n);
        end if;
        taken := '{}';
        foreach candidate in array candidates loop
            exit when cardinality(taken) >= wanted;
            -- Its state is looked at once it is locked: somebody may have had it first.
            select r.state = 'queued' and r.cancel_requested_at is null into is_due
            from runs r where r.id = candidate
            for no key update skip locked;
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

-- For workers of the previous version, which serve both priorities.
create or replace function claim_runs(p_owner text, p_lease interval, p_limit integer)
    returns table (workspace_id uuid, run_id uuid, attempt bigint)
    language sql volatile security definer set search_path = pg_catalog, public, pg_temp
as $$
    select c.workspace_id, c.run_id, c.attempt from claim_runs(p_owner, p_lease, p_limit, '{0,1}') c
$$;

reset role;
revoke create on schema public from throughline_scheduler;
revoke all on function next_runs, claim_runs(text, interval, integer, smallint[]) from public;
grant execute on function claim_runs(text, interval, integer, smallint[]) to throughline_app;
