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

grant create on schema public to throughline_scheduler;
set local role throughline_scheduler;
drop function sweep_expired(integer);

-- Expired leases, once Postgres has answered for p_answering without a pause of half of that. Most go back to `queued`
-- here (verdict `requeued`): the first retry at once, then with jittered backoff. What must end (`crash_loop`,
-- `cancelled`) is only named: ends are content, and belong to `settle`.
-- A crash counts as suspect when a tool call was started: 3 of them without progress, or 10 crashes in all.
create function sweep_expired(p_limit integer, p_answering interval)
    returns table (workspace_id uuid, run_id uuid, attempt bigint, verdict text)
    language plpgsql volatile security definer set search_path = pg_catalog, public, pg_temp
as $$
declare
    -- Taken first: a pause in the middle of this function makes no lease look older.
    asked_at timestamptz := clock_timestamp();
    answering boolean;
begin
    update availability a
    set answering_since = case when a.seen_at < asked_at - p_answering / 2 then asked_at else a.answering_since end,
        seen_at = greatest(a.seen_at, asked_at)
    returning a.answering_since <= asked_at - p_answering into answering;
    if not answering then
        return;
    end if;
    return query
    with expired as (
        select r.workspace_id, r.id, r.attempt,
               case when r.cancel_requested_at is not null then 'cancelled'
                    when r.crashes_since_progress + (r.open_tool_calls > 0)::integer >= 3
                         or r.crashes_total + 1 >= 10 then 'crash_loop'
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
            available_at = clock_timestamp() + case when r.crashes_total = 0 then interval '0'
                else interval '1 second' * least(30, 2 ^ (r.crashes_total - 1)) * (0.5 + random() / 2) end
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
