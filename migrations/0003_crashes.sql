-- Since when Postgres has answered without a pause, as the sweeps of all workers have seen it together. After a pause
-- every lease looks expired, and their owners must have the time to renew them first; a worker that has just come up
-- takes the others' word for it, so that a pool whose workers die young still sweeps.
create table availability (
    only_one boolean primary key default true check (only_one),
    answering_since timestamptz not null default clock_timestamp(),
    seen_at timestamptz not null default clock_timestamp()
);
insert into availability default values;
alter table availability enable row level security, force row level security;
create policy scheduling on availability to throughline_scheduler using (true) with check (true);
revoke all on availability from public;
grant select, update on availability to throughline_scheduler;

-- A long run that goes on after each crash is no crash loop, however many workers die under it: what ends a run are
-- 3 crashes without progress in which its tool was running (`crashes_since_progress`), 10 without progress of whatever
-- kind, or 10 with its tool running in all. Nor does it wait longer for crashes that lie before its progress.
alter table runs
    add column crashes_at_progress integer not null default 0,
    add column suspect_crashes integer not null default 0;
comment on column runs.crashes_at_progress is 'crashes_total when the last step was committed';
comment on column runs.suspect_crashes is 'crashes while a tool of the run was running';
grant select (crashes_at_progress, suspect_crashes), update (suspect_crashes) on runs to throughline_scheduler;

-- A crash takes all runs of a worker with it, and those with a tool call in flight are all suspects. One that was
-- there at two of them has one chance left: it gets it apart from the others, so that the guilty one takes no
-- innocent one with it.
create index runs_on_last_chance on runs (lease_owner) where state = 'running' and crashes_since_progress >= 2;
create index runs_due_on_last_chance on runs (priority, available_at)
    where state = 'queued' and crashes_since_progress >= 2;

grant create on schema public to throughline_scheduler;
set local role throughline_scheduler;
drop function sweep_expired(integer);

-- Takes up to p_limit due runs for p_owner, most urgent first; a run with a cancel request is left to the sweep.
-- Of the runs that the next crash inside a tool would end, an owner has one at a time.
create or replace function claim_runs(p_owner text, p_lease interval, p_limit integer)
    returns table (workspace_id uuid, run_id uuid, attempt bigint)
    language sql volatile security definer set search_path = pg_catalog, public, pg_temp
as $$
    with due as (
        select r.workspace_id, r.id, r.priority, r.available_at
        from runs r
        where r.state = 'queued' and r.available_at <= clock_timestamp() and r.cancel_requested_at is null
          and r.crashes_since_progress < 2
        order by r.priority, r.available_at
        limit p_limit
        for no key update skip locked
    ), on_last_chance as (
        select r.workspace_id, r.id, r.priority, r.available_at
        from runs r
        where r.state = 'queued' and r.available_at <= clock_timestamp() and r.cancel_requested_at is null
          and r.crashes_since_progress >= 2
          and not exists (select from runs o where o.lease_owner = p_owner and o.state = 'running'
                                               and o.crashes_since_progress >= 2)
        order by r.priority, r.available_at
        limit 1
        for no key update skip locked
    ), chosen as (
        select * from due union all select * from on_last_chance
        order by priority, available_at
        limit p_limit
    )
    update runs r
    set state = 'running', attempt = r.attempt + 1, claimed_attempt = r.attempt + 1, lease_owner = p_owner,
        lease_until = clock_timestamp() + p_lease, claimed_at = clock_timestamp(), open_tool_calls = 0,
        started_at = coalesce(r.started_at, clock_timestamp())
    from chosen
    where r.workspace_id = chosen.workspace_id and r.id = chosen.id
    returning r.workspace_id, r.id, r.attempt
$$;

-- Expired leases, once Postgres has answered for p_answering without a pause of half of that. Most go back to `queued`
-- here (verdict `requeued`): the first retry at once, then with jittered backoff. What must end (`crash_loop`,
-- `cancelled`) is only named: ends are content, and belong to `settle`.
create function sweep_expired(p_limit integer, p_answering interval)
    returns table (workspace_id uuid, run_id uuid, attempt bigint, verdict text)
    language plpgsql volatile security definer set search_path = pg_catalog, public, pg_temp
as $$
declare
    -- Taken first: a pause in the middle of this function makes no lease look older.
    asked_at timestamptz := clock_timestamp();
    answering boolean;
begin
    -- A time that lies ahead is of another clock, and says as little as one long ago.
    update availability a
    set answering_since = case when asked_at - a.seen_at between -p_answering / 2 and p_answering / 2
                               then a.answering_since else asked_at end,
        seen_at = case when a.seen_at > asked_at + p_answering / 2 then asked_at
                       else greatest(a.seen_at, asked_at) end
    returning a.answering_since <= asked_at - p_answering into answering;
    if not answering then
        return;
    end if;
    return query
    with expired as (
        select r.workspace_id, r.id, r.attempt,
               case when r.cancel_requested_at is not null then 'cancelled'
                    when r.crashes_since_progress + (r.open_tool_calls > 0)::integer >= 3
                         or r.suspect_crashes + (r.open_tool_calls > 0)::integer >= 10
                         or r.crashes_total - r.crashes_at_progress + 1 >= 10 then 'crash_loop'
                    else 'requeued' end as verdict
        from runs r
        where r.state = 'running' and r.lease_until < asked_at
        order by r.lease_until
        limit p_limit
        for no key update skip locked
    ), requeued as (
        update runs r
        set state = 'queued', lease_owner = null, lease_until = null,
            run_seconds = r.run_seconds + extract(epoch from r.lease_until - r.claimed_at),
            crashes_total = r.crashes_total + 1,
            crashes_since_progress = r.crashes_since_progress + (r.open_tool_calls > 0)::integer,
            suspect_crashes = r.suspect_crashes + (r.open_tool_calls > 0)::integer,
            available_at = clock_timestamp() + case r.crashes_total - r.crashes_at_progress when 0 then interval '0'
                else interval '1 second' * least(30, 2 ^ (r.crashes_total - r.crashes_at_progress - 1))
                     * (0.5 + random() / 2) end
        from expired
        where r.workspace_id = expired.workspace_id and r.id = expired.id and expired.verdict = 'requeued'
        returning r.id
    )
    select e.workspace_id, e.id, e.attempt, e.verdict
    from expired e left join requeued q on q.id = e.id
    where e.verdict <> 'requeued' or q.id is not null;
end
$$;

reset role;
revoke create on schema public from throughline_scheduler;
revoke all on function sweep_expired from public;
grant execute on function sweep_expired to throughline_app;
