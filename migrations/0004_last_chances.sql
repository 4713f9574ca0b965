-- After a crash a run waits for its lease anyway, which keeps it from killing one worker after the other at once; more
-- than a moment on top of that would only punish runs whose workers die under them, by whatever hand.
--
-- A run that the next crash inside a tool would end is claimed like any other: its worker keeps its tools apart from
-- those of other such runs, which needs nobody to wait to be claimed.
drop index runs_on_last_chance;
drop index runs_due_on_last_chance;

grant create on schema public to throughline_scheduler;
set local role throughline_scheduler;

-- Takes up to p_limit due runs for p_owner, most urgent first; a run with a cancel request is left to the sweep.
create or replace function claim_runs(p_owner text, p_lease interval, p_limit integer)
    returns table (workspace_id uuid, run_id uuid, attempt bigint)
    language sql volatile security definer set search_path = pg_catalog, public, pg_temp
as $$
    with due as (
        select r.workspace_id, r.id
        from runs r
        where r.state = 'queued' and r.available_at <= clock_timestamp() and r.cancel_requested_at is null
        order by r.priority, r.available_at
        limit p_limit
        for no key update skip locked
    )
    update runs r
    set state = 'running', attempt = r.attempt + 1, claimed_attempt = r.attempt + 1, lease_owner = p_owner,
        lease_until = clock_timestamp() + p_lease, claimed_at = clock_timestamp(), open_tool_calls = 0,
        started_at = coalesce(r.started_at, clock_timestamp())
    from due
    where r.workspace_id = due.workspace_id and r.id = due.id
    returning r.workspace_id, r.id, r.attempt
$$;

-- Expired leases, once Postgres has answered for p_answering without a pause of half of that. Most go back to `queued`
-- here (verdict `requeued`): the first retry at once, the next ones within 1 s, then 2 s. What must end (`crash_loop`,
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
                else interval '1 second' * least(2, r.crashes_total - r.crashes_at_progress)
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
