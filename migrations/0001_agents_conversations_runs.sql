-- Agents, conversations, messages, runs and what belongs to them; row level security forced on each.
--
-- Roles (both NOLOGIN):
--   throughline_app        what the service runs as; sees one workspace at a time, set inside a transaction.
--   throughline_scheduler  owns the few functions below that see across workspaces; it may read and write the
--                          scheduling columns of `runs` alone, so that not even a faulty function can leak content.
-- On a host that refuses CREATE ROLE, an administrator makes both beforehand; the block below then does nothing.
do $$
declare
    name text;
    -- From Postgres 16 on, who makes a role is a member of it, but may not yet SET ROLE to it.
    needed text := case when current_setting('server_version_num')::integer >= 160000 then 'SET' else 'MEMBER' end;
begin
    foreach name in array array['throughline_app', 'throughline_scheduler']
    loop
        if not exists (select from pg_roles where rolname = name) then
            begin
                execute format('create role %I nologin nosuperuser nobypassrls', name);
            exception when duplicate_object or unique_violation then
                -- Roles belong to the whole server: another database's migration was first.
                null;
            end;
        end if;
        if not pg_has_role(current_user, name, needed) then
            execute format('grant %I to %I', name, current_user);
        end if;
    end loop;
end
$$;

grant usage on schema public to throughline_app, throughline_scheduler;

-- The workspace of this transaction; NULL when none is set. Used inside a subselect, so that it is evaluated once.
create function current_workspace() returns uuid
    language sql stable parallel safe
    return nullif(current_setting('app.workspace_id', true), '')::uuid;

create table agents (
    workspace_id uuid not null,
    id uuid not null,
    name text not null,
    instructions text,
    provider text,
    model text,
    tools text[] not null default '{}',
    max_steps integer not null check (max_steps between 1 and 100),
    settings jsonb not null default '{}',
    created_by text not null,
    created_at timestamptz not null default clock_timestamp(),
    updated_at timestamptz not null default clock_timestamp(),
    deleted_at timestamptz,
    primary key (workspace_id, id)
);
create index agents_newest on agents (workspace_id, created_at desc, id desc) where deleted_at is null;

create table conversations (
    workspace_id uuid not null,
    id uuid not null,
    title text,
    agent_id uuid,
    provider text,
    model text,
    system_prompt text,
    pinned_at timestamptz,
    archived_at timestamptz,
    deleted_at timestamptz,
    last_turn integer not null default 0,
    last_message_at timestamptz,
    created_by text not null,
    created_at timestamptz not null default clock_timestamp(),
    updated_at timestamptz not null default clock_timestamp(),
    primary key (workspace_id, id),
    foreign key (workspace_id, agent_id) references agents (workspace_id, id)
);
create index conversations_newest on conversations (workspace_id, created_at desc, id desc) where deleted_at is null;

create table runs (
    workspace_id uuid not null,
    id uuid not null,
    conversation_id uuid not null,
    trigger_message_id uuid not null,
    turn integer not null,
    -- What it runs with: a snapshot, so that an edit of the agent changes no run in its middle.
    agent_id uuid,
    provider text not null,
    model text not null,
    instructions text not null default '',
    tools text[] not null default '{}',
    settings jsonb not null default '{}',
    max_steps integer not null,
    -- Scheduling
    state text not null check (state in
        ('waiting', 'queued', 'running', 'paused', 'completed', 'failed', 'cancelled')),
    priority smallint not null default 0,
    attempt bigint not null default 0,
    -- The attempt that the claim began: names the claim, while its owner may raise `attempt` itself.
    claimed_attempt bigint,
    available_at timestamptz not null default clock_timestamp(),
    lease_owner text,
    lease_until timestamptz,
    claimed_at timestamptz,
    run_seconds double precision not null default 0,
    open_tool_calls integer not null default 0,
    crashes_since_progress integer not null default 0,
    crashes_total integer not null default 0,
    cancel_requested_at timestamptz,
    cancel_reason text check (cancel_reason in ('user', 'interrupted', 'superseded', 'conversation_deleted')),
    superseded_at timestamptz,
    -- Progress and end
    step_count integer not null default 0,
    step_finish_reason text,
    finish_reason text,
    error jsonb,
    usage jsonb not null default '{}',
    partial_text text,
    terminal_attempt bigint,
    terminal_n bigint,
    terminal_event text,
    created_by text not null,
    created_at timestamptz not null default clock_timestamp(),
    started_at timestamptz,
    first_token_at timestamptz,
    finished_at timestamptz,
    primary key (workspace_id, id),
    unique (id),
    foreign key (workspace_id, conversation_id) references conversations (workspace_id, id) on delete cascade,
    constraint finished_exactly_when_terminal check (
        (state in ('completed', 'failed', 'cancelled')) = (finished_at is not null)),
    constraint terminal_event_exactly_when_terminal check (
        (finished_at is not null) = (terminal_event is not null)
        and (terminal_event is null) = (terminal_attempt is null)
        and (terminal_event is null) = (terminal_n is null)),
    constraint leased_exactly_when_running check ((state = 'running') = (lease_until is not null)),
    constraint failed_exactly_with_error check ((state = 'failed') = (error is not null))
) with (fillfactor = 70, autovacuum_analyze_scale_factor = 0.01);
-- None of these names a column that a heartbeat or a step writes, so that those updates stay heap-only.
create unique index runs_one_active on runs (workspace_id, conversation_id)
    where state in ('queued', 'running', 'paused');
create index runs_waiting on runs (workspace_id, conversation_id, turn) where state = 'waiting';
create index runs_due on runs (priority, available_at) where state = 'queued';
create index runs_running on runs (id) where state = 'running';
create index runs_to_cancel on runs (id)
    where cancel_requested_at is not null and state in ('waiting', 'queued', 'paused');
create index runs_of_conversation on runs (workspace_id, conversation_id, created_at desc, id desc);
create index runs_ended_badly on runs (workspace_id, state, created_at desc, id desc)
    where state in ('failed', 'cancelled');
create index runs_newest on runs (workspace_id, created_at desc, id desc);
create index runs_of_trigger on runs (workspace_id, trigger_message_id);

create function refuse_change_of_terminal_run() returns trigger language plpgsql as $$
begin
    -- Superseding marks finished runs too; nothing else of theirs may change.
    old.superseded_at := new.superseded_at;
    if new is distinct from old then
        raise exception 'run % has ended and is immutable', old.id using errcode = 'integrity_constraint_violation';
    end if;
    return new;
end
$$;
create trigger terminal_runs_are_immutable before update on runs
    for each row when (old.finished_at is not null)
    execute function refuse_change_of_terminal_run();

create table messages (
    workspace_id uuid not null,
    id uuid not null,
    conversation_id uuid not null,
    run_id uuid,
    step integer,
    -- The order of a conversation: a user's message opens a turn, a run's output belongs to its trigger's turn.
    turn integer not null,
    position integer not null,
    role text not null check (role in ('user', 'assistant', 'tool', 'system')),
    content text not null,
    reasoning text,
    tool_calls jsonb,
    tool_call_id text,
    is_error boolean,
    outcome text check (outcome in ('ok', 'error', 'unknown', 'cancelled')),
    provider_data jsonb,
    agent_id uuid,
    provider text,
    model text,
    usage jsonb,
    edited_content text,
    edited_at timestamptz,
    superseded_at timestamptz,
    created_by text,
    created_at timestamptz not null default clock_timestamp(),
    primary key (workspace_id, id),
    unique (workspace_id, conversation_id, turn, position),
    foreign key (workspace_id, conversation_id) references conversations (workspace_id, id) on delete cascade,
    foreign key (workspace_id, run_id) references runs (workspace_id, id) on delete cascade,
    constraint tool_message_has_call check ((role = 'tool') = (tool_call_id is not null))
);
create unique index messages_one_per_step on messages (workspace_id, run_id, step) where role = 'assistant';
create unique index messages_one_per_call on messages (workspace_id, run_id, tool_call_id) where role = 'tool';
create index messages_of_run on messages (workspace_id, run_id) where run_id is not null;

create table model_calls (
    workspace_id uuid not null,
    id uuid not null,
    run_id uuid not null,
    attempt bigint not null,
    step integer not null,
    provider text not null,
    model text not null,
    state text not null check (state in ('started', 'completed', 'failed', 'cancelled', 'crashed')),
    input_tokens bigint not null default 0,
    output_tokens bigint not null default 0,
    cached_input_tokens bigint not null default 0,
    cache_write_tokens bigint not null default 0,
    reasoning_tokens bigint not null default 0,
    estimated boolean not null default false,
    error_code text,
    started_at timestamptz not null default clock_timestamp(),
    finished_at timestamptz,
    primary key (workspace_id, id),
    foreign key (workspace_id, run_id) references runs (workspace_id, id) on delete cascade,
    constraint finished_exactly_when_ended check ((state = 'started') = (finished_at is null))
);
create index model_calls_of_run on model_calls (workspace_id, run_id);

create table tool_calls (
    workspace_id uuid not null,
    id text not null,
    run_id uuid not null,
    message_id uuid not null,
    step integer not null,
    index integer not null,
    name text not null,
    arguments jsonb not null,
    invalid text,
    provider_call_id text,
    effect text not null check (effect in ('read', 'idempotent', 'transactional', 'at_most_once')),
    state text not null default 'pending' check (state in ('pending', 'started', 'finished')),
    outcome text check (outcome in ('ok', 'error', 'unknown', 'cancelled')),
    attempt bigint,
    started_at timestamptz,
    finished_at timestamptz,
    primary key (workspace_id, id),
    foreign key (workspace_id, run_id) references runs (workspace_id, id) on delete cascade,
    foreign key (workspace_id, message_id) references messages (workspace_id, id) on delete cascade,
    constraint outcome_exactly_when_finished check ((state = 'finished') = (outcome is not null))
);
create index tool_calls_of_run on tool_calls (workspace_id, run_id, step, index);

create table idempotency_keys (
    workspace_id uuid not null,
    user_id text not null,
    key text not null,
    request_hash bytea not null,
    run_id uuid,
    answer bytea,
    created_at timestamptz not null default clock_timestamp(),
    primary key (workspace_id, user_id, key)
);
create index idempotency_keys_oldest on idempotency_keys (created_at);

create table tickets (
    workspace_id uuid not null,
    hash bytea not null,
    subject_kind text not null check (subject_kind in ('run', 'conversation', 'document')),
    subject_id uuid not null,
    user_id text not null,
    role text not null,
    redeem_by timestamptz not null,
    redeemed_at timestamptz,
    expires_at timestamptz not null,
    primary key (workspace_id, hash)
);
create index tickets_oldest on tickets (expires_at);

-- What the workers offer: no workspace, nothing secret; the API reads it, workers write it at start.
create table catalogue (
    worker text primary key,
    offers jsonb not null,
    seen_at timestamptz not null default clock_timestamp()
);

-- Row level security --------------------------------------------------------------------------------------------
do $$
declare
    name text;
begin
    foreach name in array array['agents', 'conversations', 'runs', 'messages', 'model_calls', 'tool_calls',
                                'idempotency_keys', 'tickets']
    loop
        execute format('alter table %I enable row level security, force row level security', name);
        execute format(
            'create policy workspace on %I to throughline_app'
            ' using (workspace_id = (select current_workspace()))'
            ' with check (workspace_id = (select current_workspace()))', name);
        execute format('revoke all on %I from public', name);
        execute format('grant select, insert, update, delete on %I to throughline_app', name);
    end loop;
end
$$;
alter table catalogue enable row level security, force row level security;
create policy everyone on catalogue to throughline_app using (true) with check (true);
revoke all on catalogue from public;
grant select, insert, update, delete on catalogue to throughline_app;

-- Across workspaces ---------------------------------------------------------------------------------------------
create policy scheduling on runs to throughline_scheduler using (true) with check (true);
grant select (workspace_id, id, conversation_id, turn, state, priority, attempt, claimed_attempt, available_at,
              lease_owner, lease_until, claimed_at, run_seconds, open_tool_calls, crashes_since_progress, crashes_total,
              cancel_requested_at, started_at, terminal_attempt, terminal_n, finished_at, superseded_at)
    on runs to throughline_scheduler;
grant update (state, attempt, claimed_attempt, available_at, lease_owner, lease_until, claimed_at, run_seconds,
              open_tool_calls,
              crashes_since_progress, crashes_total, started_at)
    on runs to throughline_scheduler;
