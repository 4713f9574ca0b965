-- A crash takes all runs of a worker with it, and those with a tool call in flight are all suspects. One that was
-- there at two of them has one chance left: it gets it apart from the others, so that the guilty one takes no
-- innocent one with it.
create index runs_on_last_chance on runs (lease_owner) where state = 'running' and crashes_since_progress >= 2;

grant create on schema public to throughline_scheduler;
set local role throughline_scheduler;

-- Takes up to p_limit due runs for p_owner, most urgent first; a run with a cancel request is left to the sweep.
-- Of the runs that the next crash would end, an owner has one at a time.
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

reset role;
revoke create on schema public from throughline_scheduler;
