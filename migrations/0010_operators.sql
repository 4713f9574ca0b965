-- For who operates the system: workers as they report, what goes on across workspaces in numbers, and failed runs that
-- an operator starts again.
--
-- `runs` is held while codes are filled in and the indexes are built. A million runs take some seconds, in which requests
-- are answered 503 and runs wait, as they do while Postgres is away.

-- What each worker says of itself every few seconds: no workspace, nothing secret. Counters count from its start.
create table workers (
    owner text primary key,
    version text not null,
    started_at timestamptz not null,
    seen_at timestamptz not null default clock_timestamp(),
    running integer not null,
    places integer not null,
    draining boolean not null,
    priorities smallint[] not null,
    runs_ended bigint not null default 0,
    output_tokens bigint not null default 0
) with (fillfactor = 50);
alter table workers enable row level security, force row level security;
create policy everyone on workers to throughline_app using (true) with check (true);
revoke all on workers from public;
grant select, insert, update, delete on workers to throughline_app;

-- A failed run that an operator started again, once, and who it was.
create table requeues (
    workspace_id uuid not null,
    run_id uuid not null,
    new_run_id uuid not null,
    requeued_by text not null,
    requeued_at timestamptz not null default clock_timestamp(),
    primary key (workspace_id, run_id),
    foreign key (workspace_id, run_id) references runs (workspace_id, id) on delete cascade,
    foreign key (workspace_id, new_run_id) references runs (workspace_id, id) on delete cascade
);
create index requeues_of_new_run on requeues (workspace_id, new_run_id);
alter table requeues enable row level security, force row level security;
create policy workspace on requeues to throughline_app
    using (workspace_id = (select current_workspace()))
    with check (workspace_id = (select current_workspace()));
revoke all on requeues from public;
grant select, insert, update, delete on requeues to throughline_app;

-- What each workspace used on a day that is over (UTC): a month of runs is counted once, not whenever somebody looks. All
-- days before `use_closed` are.
create table use_of_days (
    workspace_id uuid not null,
    day date not null,
    runs bigint not null,
    input_tokens bigint not null,
    output_tokens bigint not null,
    primary key (workspace_id, day)
);
create index use_of_days_by_day on use_of_days (day);
create table use_closed (
    only_one boolean primary key default true check (only_one),
    before date not null
);
insert into use_closed (before) values ('2000-01-01');
alter table use_of_days enable row level security, force row level security;
alter table use_closed enable row level security, force row level security;
create policy workspace on use_of_days to throughline_app
    using (workspace_id = (select current_workspace()))
    with check (workspace_id = (select current_workspace()));
create policy scheduling on use_of_days to throughline_scheduler using (true) with check (true);
create policy scheduling on use_closed to throughline_scheduler using (true) with check (true);
revoke all on use_of_days, use_closed from public;
grant select, insert, update, delete on use_of_days to throughline_app;
grant select, insert on use_of_days to throughline_scheduler;
grant select, update on use_closed to throughline_scheduler;

-- The code of `error`, in a column of its own: the rest of `error` is what somebody's provider said, which nobody reads
-- across workspaces. A trigger writes it, so that workers of the version before write it as well.
alter table runs add column error_code text;
create function note_error_code() returns trigger language plpgsql as $$
begin
    new.error_code := new.error->>'code';
    return new;
end
$$;
create trigger error_codes_are_noted before insert or update of error on runs
    for each row when (new.error is not null)
    execute function note_error_code();
-- The owner of the table sees no row while row level security is forced.
alter table runs no force row level security, disable trigger terminal_runs_are_immutable;
update runs set error_code = error->>'code' where error is not null;
alter table runs force row level security, enable trigger terminal_runs_are_immutable;

-- None names a column that a heartbeat, a step or the end of a call writes, so that those updates stay heap-only.
create index runs_ended on runs (finished_at) include (workspace_id, state, error_code) where finished_at is not null;
create index runs_failed on runs (error_code, finished_at, id) where state = 'failed';
create index model_calls_oldest on model_calls (started_at);

-- Across workspaces ---------------------------------------------------------------------------------------------
grant select (agent_id, error_code, created_at, first_token_at) on runs to throughline_scheduler;
create policy scheduling on model_calls for select to throughline_scheduler using (true);
grant select (workspace_id, started_at, finished_at, input_tokens, output_tokens) on model_calls to throughline_scheduler;
create policy scheduling on requeues for select to throughline_scheduler using (true);
grant select on requeues to throughline_scheduler;

grant create on schema public to throughline_scheduler;
set local role throughline_scheduler;

-- All of these return ids, numbers and codes, never content. now() rather than clock_timestamp(), by which no index can
-- be searched; each is a transaction of its own.

-- Milliseconds from due to claimed (of each run's last claim), and from a message to the first token of its answer.
create function measure_latencies(p_window interval)
    returns table (what text, samples bigint, p50 double precision, p95 double precision, p99 double precision)
    language sql stable security definer set search_path = pg_catalog, public, pg_temp
as $$
    with recent as (
        select r.created_at, r.available_at, r.claimed_at, r.first_token_at from runs r
        where r.finished_at > now() - p_window
        union all
        select r.created_at, r.available_at, r.claimed_at, r.first_token_at from runs r
        where r.state = 'running'
    ), sample as (
        select 'pickup' as what, date_part('epoch', claimed_at - available_at) * 1000 as ms from recent
        where claimed_at > now() - p_window and claimed_at >= available_at
        union all
        select 'first_token', date_part('epoch', first_token_at - created_at) * 1000 from recent
        where first_token_at > now() - p_window
    )
    select s.what, s.samples, s.p[1], s.p[2], s.p[3]
    from (select what, count(*) as samples, percentile_cont(array[0.5, 0.95, 0.99]) within group (order by ms) as p
          from sample group by what) s
$$;

-- What ended, and what was measured, in each of the last p_minutes: `ago` 0 is the minute up to now. Percentiles of more
-- than 50,000 runs are those of as many, at random: sorting all would take seconds.
create function measure_minutes(p_minutes integer, p_with_tokens boolean)
    returns table (ago integer, completed bigint, failed bigint, cancelled bigint, output_tokens bigint,
                   pickup_p50 double precision, pickup_p95 double precision,
                   first_token_p50 double precision, first_token_p95 double precision)
    language sql volatile security definer set search_path = pg_catalog, public, pg_temp set work_mem = '32MB'
as $$
    with ended as materialized (
        select r.state, r.finished_at, r.created_at, r.available_at, r.claimed_at, r.first_token_at from runs r
        where r.finished_at > now() - make_interval(mins => p_minutes)
    ), recent as (
        select created_at, available_at, claimed_at, first_token_at from ended
        where random() < (select 50000.0 / greatest(1, count(*)) from ended)
        union all
        select r.created_at, r.available_at, r.claimed_at, r.first_token_at from runs r where r.state = 'running'
    ), ends as (
        select floor(date_part('epoch', now() - finished_at) / 60)::integer as ago,
               count(*) filter (where state = 'completed') as completed,
               count(*) filter (where state = 'failed') as failed,
               count(*) filter (where state = 'cancelled') as cancelled
        from ended group by 1
    ), pickups as (
        select floor(date_part('epoch', now() - claimed_at) / 60)::integer as ago,
               percentile_cont(array[0.5, 0.95]) within group
                   (order by date_part('epoch', claimed_at - available_at) * 1000) as p
        from recent where claimed_at > now() - make_interval(mins => p_minutes) and claimed_at >= available_at
        group by 1
    ), first_tokens as (
        select floor(date_part('epoch', now() - first_token_at) / 60)::integer as ago,
               percentile_cont(array[0.5, 0.95]) within group
                   (order by date_part('epoch', first_token_at - created_at) * 1000) as p
        from recent where first_token_at > now() - make_interval(mins => p_minutes)
        group by 1
    ), calls as (
        -- A call that took more than an hour is missed here: it is looked for by its begin, by which there is an index.
        select floor(date_part('epoch', now() - c.finished_at) / 60)::integer as ago,
               sum(c.output_tokens)::bigint as output_tokens
        from model_calls c
        where p_with_tokens and c.started_at > now() - make_interval(hours => 1, mins => p_minutes)
          and c.finished_at > now() - make_interval(mins => p_minutes)
        group by 1
    )
    select minute.ago, coalesce(e.completed, 0), coalesce(e.failed, 0), coalesce(e.cancelled, 0),
           coalesce(c.output_tokens, 0), k.p[1], k.p[2], f.p[1], f.p[2]
    from generate_series(0, p_minutes - 1) as minute (ago)
    left join ends e using (ago) left join pickups k using (ago) left join first_tokens f using (ago)
    left join calls c using (ago)
    order by minute.ago desc
$$;

create function count_ended_runs(p_window interval)
    returns table (state text, error_code text, runs bigint)
    language sql stable security definer set search_path = pg_catalog, public, pg_temp
as $$
    select r.state, r.error_code, count(*) from runs r
    where r.finished_at > now() - p_window
    group by r.state, r.error_code order by count(*) desc, r.state, r.error_code
$$;

-- Failed runs with one of these codes, the last one first, from before (p_finished_at, p_id) on. `outdated`: its turn was
-- answered anew, or others have come after it.
create function list_failed_runs(p_error_codes text[], p_finished_at timestamptz, p_id uuid, p_limit integer)
    returns table (workspace_id uuid, run_id uuid, conversation_id uuid, agent_id uuid, error_code text, attempt bigint,
                   crashes integer, created_at timestamptz, started_at timestamptz, finished_at timestamptz,
                   outdated boolean, new_run_id uuid, requeued_by text, requeued_at timestamptz)
    language sql stable security definer set search_path = pg_catalog, public, pg_temp
as $$
    with found as (
        select last.* from unnest(p_error_codes) as wanted (code) cross join lateral (
            select r.workspace_id, r.id, r.conversation_id, r.turn, r.agent_id, r.error_code, r.attempt, r.crashes_total,
                   r.created_at, r.started_at, r.finished_at, r.superseded_at
            from runs r
            where r.state = 'failed' and r.error_code = wanted.code
              and (r.finished_at, r.id) < (coalesce(p_finished_at, 'infinity'),
                                           coalesce(p_id, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
            order by r.finished_at desc, r.id desc limit p_limit) last
        order by last.finished_at desc, last.id desc limit p_limit
    )
    select r.workspace_id, r.id, r.conversation_id, r.agent_id, r.error_code, r.attempt, r.crashes_total,
           r.created_at, r.started_at, r.finished_at,
           r.superseded_at is not null
               or exists (select from runs l where l.workspace_id = r.workspace_id
                          and l.conversation_id = r.conversation_id and l.turn > r.turn),
           q.new_run_id, q.requeued_by, q.requeued_at
    from found r left join requeues q on q.workspace_id = r.workspace_id and q.run_id = r.id
    order by r.finished_at desc, r.id desc
$$;

-- What each workspace used between two moments: runs that ended then, and tokens of model calls that began then.
create function sum_use(p_from timestamptz, p_before timestamptz)
    returns table (workspace_id uuid, runs bigint, input_tokens bigint, output_tokens bigint)
    language sql stable security definer set search_path = pg_catalog, public, pg_temp
as $$
    select workspace_id, sum(u.runs)::bigint, sum(u.input_tokens)::bigint, sum(u.output_tokens)::bigint
    from (select r.workspace_id, count(*) as runs, 0::bigint as input_tokens, 0::bigint as output_tokens from runs r
          where r.finished_at >= p_from and r.finished_at < p_before group by r.workspace_id
          union all
          select c.workspace_id, 0, sum(c.input_tokens)::bigint, sum(c.output_tokens)::bigint from model_calls c
          where c.started_at >= p_from and c.started_at < p_before group by c.workspace_id) u
    group by workspace_id
$$;

-- Counts the next day of this month that has been over for so long that its calls have ended; false when none is left,
-- or somebody else is at it.
create function close_day_of_use() returns boolean
    language plpgsql volatile security definer set search_path = pg_catalog, public, pg_temp set timezone = 'UTC'
as $$
declare
    next_day date;
begin
    select greatest(c.before, date_trunc('month', now())::date) into next_day from use_closed c for update skip locked;
    if next_day is null or next_day + 1 > now() - interval '6 hours' then
        return false;
    end if;
    insert into use_of_days (workspace_id, day, runs, input_tokens, output_tokens)
    select u.workspace_id, next_day, u.runs, u.input_tokens, u.output_tokens from sum_use(next_day, next_day + 1) u;
    update use_closed set before = next_day + 1;
    return true;
end
$$;

-- Each workspace's use since the day and the month began (UTC): of days that are over mostly from what was counted.
create function measure_use(p_limit integer)
    returns table (workspace_id uuid, runs_today bigint, runs_this_month bigint, input_tokens_today bigint,
                   output_tokens_today bigint, input_tokens_this_month bigint, output_tokens_this_month bigint)
    language sql stable security definer set search_path = pg_catalog, public, pg_temp set timezone = 'UTC'
as $$
    with piece as (
        select d.workspace_id, false as today, d.runs, d.input_tokens, d.output_tokens
        from use_of_days d where d.day >= date_trunc('month', now())
        union all
        select u.workspace_id, false, u.runs, u.input_tokens, u.output_tokens
        from use_closed c, sum_use(greatest(c.before, date_trunc('month', now())), date_trunc('day', now())) u
        union all
        select u.workspace_id, true, u.runs, u.input_tokens, u.output_tokens
        from sum_use(date_trunc('day', now()), 'infinity') u
    )
    select workspace_id,
           coalesce(sum(runs) filter (where today), 0)::bigint, sum(runs)::bigint,
           coalesce(sum(input_tokens) filter (where today), 0)::bigint,
           coalesce(sum(output_tokens) filter (where today), 0)::bigint,
           sum(input_tokens)::bigint, sum(output_tokens)::bigint
    from piece group by workspace_id
    order by sum(input_tokens) + sum(output_tokens) desc, workspace_id limit p_limit
$$;

reset role;
revoke create on schema public from throughline_scheduler;
revoke all on function measure_latencies, measure_minutes, count_ended_runs,
    list_failed_runs, sum_use, close_day_of_use, measure_use from public;
grant execute on function measure_latencies, measure_minutes, count_ended_runs,
    list_failed_runs, close_day_of_use, measure_use to throughline_app;
