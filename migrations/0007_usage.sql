-- The meter outlives what it has measured: a model call says itself for whom and in which conversation it was made, so
-- that usage is asked of this table alone, and no longer goes with its run. `run_id` is a name from now on, which may
-- name nothing any more.
--
-- Filling in the calls that exist holds both tables, in the order in which workers take them. A million calls take some
-- tens of seconds, in which requests are answered 503 and runs wait, as they do while Postgres is away.
lock table runs, model_calls in access exclusive mode;
alter table model_calls drop constraint model_calls_workspace_id_run_id_fkey;
alter table model_calls
    add column conversation_id uuid,
    add column agent_id uuid,
    add column created_by text;
comment on column model_calls.created_by is 'the user who asked for the run';

-- Also for workers of the version before, which name the run alone.
create function complete_model_call() returns trigger language plpgsql as $$
begin
    select r.conversation_id, r.agent_id, r.created_by into new.conversation_id, new.agent_id, new.created_by
    from runs r where r.workspace_id = new.workspace_id and r.id = new.run_id;
    return new;
end
$$;
create trigger model_calls_name_whom_they_are_for before insert on model_calls
    for each row execute function complete_model_call();

-- The owner of the tables sees no row while row level security is forced.
alter table runs no force row level security;
alter table model_calls no force row level security;
update model_calls c
set conversation_id = r.conversation_id, agent_id = r.agent_id, created_by = r.created_by
from runs r where r.workspace_id = c.workspace_id and r.id = c.run_id;
alter table runs force row level security;
alter table model_calls force row level security;

alter table model_calls add constraint says_whom_it_was_made_for
    check (conversation_id is not null and created_by is not null);

-- A workspace's usage of some days, and what it and one of its users have spent today: both read this index's range
-- (`started_at >= …`; a call belongs to the day, in UTC, on which it began). It names no column that the end of a call
-- writes, so that those updates stay heap-only.
create index model_calls_by_time on model_calls (workspace_id, started_at);
