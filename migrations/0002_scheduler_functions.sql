-- The few functions that see across workspaces. Each returns ids, attempts and flags, never content.
-- Only the database's clock counts, and always clock_timestamp(): now() is the transaction's start.
grant create on schema public to throughline_scheduler;
set local role throughline_scheduler;

-- Takes up to p_limit due runs for p_owner, most urgent first; a run with a cancel request is left to the sweep.
create function claim_runs(p_owner text, p_lease interval, p_limit integer)
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

-- Extends the leases that p_owner still holds, each named by the attempt that its claim began, and tells which of
-- them are asked to cancel. A row that somebody has locked is skipped (p_wait: waited for): absent from the answer
-- means "not renewed", not yet "lost".
create function renew_leases(p_owner text, p_runs uuid[], p_claims bigint[], p_lease interval, p_wait boolean)
    returns table (run_id uuid, cancel_requested boolean)
    language plpgsql volatile security definer set search_path = pg_catalog, public, pg_temp
as $$
declare
    held uuid[];
begin
    if p_wait then
        select array_agg(l.id) into held from (
            select r.id from unnest(p_runs, p_claims) as u (id, claim) join runs r on r.id = u.id
            where r.claimed_attempt = u.claim and r.state = 'running' and r.lease_owner = p_owner
            for no key update of r) l;
    else
        select array_agg(l.id) into held from (
            select r.id from unnest(p_runs, p_claims) as u (id, claim) join runs r on r.id = u.id
            where r.claimed_attempt = u.claim and r.state = 'running' and r.lease_owner = p_owner
            for no key update of r skip locked) l;
    end if;
    return query
        update runs r set lease_until = clock_timestamp() + p_lease
        where r.id = any (held)
        returning r.id, r.cancel_requested_at is not null;
end
$$;

-- Expired leases. Most go back to `queued` here (verdict `requeued`): the first retry at once, then with jittered
-- backoff. What must end (`crash_loop`, `cancelled`) is only named: ends are content, and belong to `settle`.
-- A crash counts as suspect when a tool call was started: 3 of them without progress, or 10 crashes in all.
create function sweep_expired(p_limit integer)
    returns table (workspace_id uuid, run_id uuid, attempt bigint, verdict text)
    language sql volatile security definer set search_path = pg_catalog, public, pg_temp
as $$
    with expired as (
        select r.workspace_id, r.id, r.attempt,
               case when r.cancel_requested_at is not null then 'cancelled'
                    when r.crashes_since_progress + (r.open_tool_calls > 0)::integer >= 3
                         or r.crashes_total + 1 >= 10 then 'crash_loop'
                    else 'requeued' end as verdict
        from runs r
        where r.state = 'running' and r.lease_until < clock_timestamp()
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
    where e.verdict <> 'requeued' or q.id is not null
$$;

-- Queued or waiting runs whose cancel request nobody carried out (the process that asked died in between).
create function find_cancelled(p_limit integer)
    returns table (workspace_id uuid, run_id uuid, attempt bigint)
    language sql stable security definer set search_path = pg_catalog, public, pg_temp
as $$
    select r.workspace_id, r.id, r.attempt from runs r
    where r.state in ('queued', 'waiting', 'paused') and r.cancel_requested_at is not null
    limit p_limit
$$;

-- Conversations whose next waiting run nobody promoted.
create function find_promotable(p_limit integer)
    returns table (workspace_id uuid, conversation_id uuid)
    language sql stable security definer set search_path = pg_catalog, public, pg_temp
as $$
    select distinct w.workspace_id, w.conversation_id from runs w
    where w.state = 'waiting' and not exists (
        select from runs a
        where a.workspace_id = w.workspace_id and a.conversation_id = w.conversation_id
          and a.state in ('queued', 'running', 'paused'))
    limit p_limit
$$;

-- Where the runs stand that a relay follows.
create function poll_runs(p_runs uuid[])
    returns table (workspace_id uuid, run_id uuid, state text, attempt bigint, terminal_attempt bigint,
                   terminal_n bigint)
    language sql stable security definer set search_path = pg_catalog, public, pg_temp
as $$
    select r.workspace_id, r.id, r.state, r.attempt, r.terminal_attempt, r.terminal_n
    from unnest(p_runs) as u (id) join runs r on r.id = u.id
$$;

reset role;
revoke create on schema public from throughline_scheduler;
revoke all on function claim_runs, renew_leases, sweep_expired, find_cancelled, find_promotable, poll_runs from public;
grant execute on function claim_runs, renew_leases, sweep_expired, find_cancelled, find_promotable, poll_runs
    to throughline_app;
