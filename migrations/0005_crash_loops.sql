-- A long run that goes on after each crash is no crash loop, however many workers die under it: what ends a run are
-- 3 crashes without progress in which its tool was running (`crashes_since_progress`), 10 without progress of whatever
-- kind, or 10 with its tool running in all. Nor does it wait longer for crashes that lie before its progress.
alter table runs
    add column crashes_at_progress integer not null default 0,
    add column suspect_crashes integer not null default 0;
comment on column runs.crashes_at_progress is 'crashes_total when the last step was committed';
comment on column runs.suspect_crashes is 'crashes while a tool of the run was running';
grant select (crashes_at_progress, suspect_crashes), update (suspect_crashes) on runs to throughline_scheduler;

grant create on schema public to throughline_scheduler;
set local role throughline_scheduler;

-- Expired leases, once Postgres has answered for p_answering without a pause of half of that. Most go back to `queued`
-- here (verdict `requeued`): the first retry at once, then with jittered backoff. What must end (`crash_loop`,
-- `cancelled`) is only named: ends are content, and belong to `settle`.
create or replace function sweep_expired(p_limit integer, p_answering interval)
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
