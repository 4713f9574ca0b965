-- What an operator watches: how much waits for a worker and for how long, and the trace that a run belongs to.

-- The W3C `traceparent` of the request that began the run; none where nobody traces.
alter table runs add column traceparent text;

grant create on schema public to throughline_scheduler;
set local role throughline_scheduler;

-- How many runs of each priority wait for a worker, are running, or wait for their conversation. Of the queued ones,
-- `due` may be claimed now; the oldest of these has been so for `oldest_due_s` seconds (null: there is none).
create function queue_depth()
    returns table (priority smallint, queued bigint, due bigint, oldest_due_s double precision, running bigint,
                   waiting bigint)
    language sql volatile security definer set search_path = pg_catalog, public, pg_temp
as $$
    with queued as (
        select r.priority, count(*) as queued,
               count(*) filter (where r.available_at <= clock_timestamp()) as due,
               extract(epoch from clock_timestamp() - min(r.available_at)
                       filter (where r.available_at <= clock_timestamp())) as oldest_due_s
        from runs r where r.state = 'queued' and r.cancel_requested_at is null group by r.priority
    ), running as (
        select r.priority, count(*) as running from runs r where r.state = 'running' group by r.priority
    ), waiting as (
        select r.priority, count(*) as waiting from runs r where r.state = 'waiting' group by r.priority
    )
    select priority, coalesce(q.queued, 0), coalesce(q.due, 0), q.oldest_due_s::double precision,
           coalesce(n.running, 0), coalesce(w.waiting, 0)
    from queued q full join running n using (priority) full join waiting w using (priority)
$$;

reset role;
revoke create on schema public from throughline_scheduler;
revoke all on function queue_depth from public;
grant execute on function queue_depth to throughline_app;
