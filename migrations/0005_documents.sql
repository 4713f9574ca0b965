-- Documents that people and agents edit together. What a document is, is its snapshot and the updates after it, in
-- the order of `seq`; everything else can be made of those.
create table documents (
    workspace_id uuid not null,
    id uuid not null,
    name text not null,
    kind text not null check (kind in ('markdown')),
    -- The last update, and the one that the snapshot holds: every number up to head_seq is taken exactly once.
    head_seq bigint not null default 0,
    snapshot_seq bigint not null default 0,
    -- What lies behind the snapshot; says when to make another.
    tail_count integer not null default 0,
    tail_bytes bigint not null default 0,
    created_by text not null,
    updated_by text not null,
    created_at timestamptz not null default clock_timestamp(),
    updated_at timestamptz not null default clock_timestamp(),
    deleted_at timestamptz,
    primary key (workspace_id, id),
    constraint snapshot_is_of_the_past check (snapshot_seq <= head_seq)
) with (fillfactor = 70);
create index documents_newest on documents (workspace_id, created_at desc, id desc) where deleted_at is null;

create table document_updates (
    workspace_id uuid not null,
    document_id uuid not null,
    seq bigint not null,
    data bytea not null,
    created_at timestamptz not null default clock_timestamp(),
    primary key (workspace_id, document_id, seq),
    foreign key (workspace_id, document_id) references documents (workspace_id, id) on delete cascade
);
-- Updates do not compress, and are read back whole.
alter table document_updates alter column data set storage external;

create table document_snapshots (
    workspace_id uuid not null,
    document_id uuid not null,
    seq bigint not null,
    data bytea not null,
    created_at timestamptz not null default clock_timestamp(),
    primary key (workspace_id, document_id),
    foreign key (workspace_id, document_id) references documents (workspace_id, id) on delete cascade
);

-- Who changed what, and when. What one actor does without a pause is one row, a tool call always has its own; rows
-- outlive the updates that they tell of. Lengths are in UTF-16 units, as Yjs counts.
create table document_changes (
    workspace_id uuid not null,
    document_id uuid not null,
    first_seq bigint not null,
    last_seq bigint not null,
    actor_kind text not null check (actor_kind in ('user', 'agent')),
    actor_id text not null,
    run_id uuid,
    tool_call_id text,
    inserted bigint not null,
    removed bigint not null,
    began_at timestamptz not null,
    ended_at timestamptz not null,
    primary key (workspace_id, document_id, first_seq),
    foreign key (workspace_id, document_id) references documents (workspace_id, id) on delete cascade,
    constraint agents_act_in_runs check ((actor_kind = 'agent') = (run_id is not null and tool_call_id is not null))
) with (fillfactor = 70);
create unique index document_changes_of_call on document_changes (workspace_id, run_id, tool_call_id)
    where tool_call_id is not null;
-- No column that a keystroke changes: so that its row is rewritten in place.
create index document_changes_of_actor on document_changes (workspace_id, document_id, actor_id, first_seq)
    where tool_call_id is null;

-- Who is behind a client id of the document's updates. Who edits through the server keeps the one that the server took
-- for them, an agent for its run: a new one each time would make every state vector longer for good.
create table document_clients (
    workspace_id uuid not null,
    document_id uuid not null,
    client bigint not null,
    actor_kind text not null check (actor_kind in ('user', 'agent')),
    actor_id text not null,
    run_id uuid,
    taken_by_server boolean not null,
    primary key (workspace_id, document_id, client),
    foreign key (workspace_id, document_id) references documents (workspace_id, id) on delete cascade
);
create unique index document_clients_of_server on document_clients (workspace_id, document_id, actor_id, run_id)
    nulls not distinct where taken_by_server;

-- A tsvector holds a megabyte at most, so words beyond the first 200,000 characters are not found; of a text whose words
-- take more than others do, those beyond the first 40,000.
create function document_words(p_content text) returns tsvector language plpgsql immutable as $$
begin
    return to_tsvector('pg_catalog.simple', left(p_content, 200000));
exception when program_limit_exceeded then
    return to_tsvector('pg_catalog.simple', left(p_content, 40000));
end
$$;

-- The text, for lists and searches: of `seq`, which may be some seconds old while people type. No index over `words`: row level
-- security lets no operator see a row before the policy has, so a search looks at each text of its workspace.
create table document_texts (
    workspace_id uuid not null,
    document_id uuid not null,
    seq bigint not null,
    content text not null,
    words tsvector not null generated always as (document_words(content)) stored,
    primary key (workspace_id, document_id),
    foreign key (workspace_id, document_id) references documents (workspace_id, id) on delete cascade
);

-- Row level security --------------------------------------------------------------------------------------------
do $$
declare
    name text;
begin
    foreach name in array array['documents', 'document_updates', 'document_snapshots', 'document_changes',
                                'document_clients', 'document_texts']
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

-- Appends updates, numbers them, and notes whose they are; one round trip and, outside of a transaction, one commit.
-- The last one's number; none for a document that is not there (any more). The row's lock makes the order of commits
-- the order of numbers, so whoever has read up to a number has read all before it.
create function append_document_updates(
    p_workspace uuid, p_document uuid, p_data bytea[], p_inserted bigint[], p_removed bigint[],
    p_kinds text[], p_actors text[], p_run uuid default null, p_call text default null
) returns bigint language plpgsql as $$
declare
    added constant integer := cardinality(p_data);
    moment timestamptz;
    head bigint;
begin
    perform set_config('app.workspace_id', p_workspace::text, true);
    update documents
    set head_seq = head_seq + added, tail_count = tail_count + added, updated_at = clock_timestamp(),
        updated_by = p_actors[added],
        tail_bytes = tail_bytes + (select sum(octet_length(data)) from unnest(p_data) data)
    where id = p_document and deleted_at is null
    returning head_seq, updated_at into head, moment;
    if head is null then
        return null;
    end if;
    insert into document_updates (workspace_id, document_id, seq, data, created_at)
    select p_workspace, p_document, head - added + place, data, moment
    from unnest(p_data) with ordinality given (data, place);

    with changed as (
        select kind, actor, sum(inserted) as inserted, sum(removed) as removed,
               min(head - added + place) as first_seq, max(head - added + place) as last_seq
        from unnest(p_kinds, p_actors, p_inserted, p_removed) with ordinality
             given (kind, actor, inserted, removed, place)
        group by kind, actor
    ), continued as (
        update document_changes c
        set last_seq = changed.last_seq, ended_at = moment,
            inserted = c.inserted + changed.inserted, removed = c.removed + changed.removed
        from changed
        where c.document_id = p_document and c.tool_call_id is null and p_call is null
          and c.actor_id = changed.actor and c.actor_kind = changed.kind and c.ended_at > moment - interval '1 minute'
          and c.first_seq = (select max(l.first_seq) from document_changes l where l.document_id = p_document
                             and l.actor_id = changed.actor and l.tool_call_id is null)
        returning c.actor_kind, c.actor_id
    )
    insert into document_changes (workspace_id, document_id, first_seq, last_seq, actor_kind, actor_id, run_id,
                                  tool_call_id, inserted, removed, began_at, ended_at)
    select p_workspace, p_document, first_seq, last_seq, kind, actor, p_run, p_call, inserted, removed, moment, moment
    from changed
    where not exists (select from continued where actor_kind = kind and actor_id = actor);
    return head;
end
$$;

-- Where the documents stand that somebody has open.
create policy scheduling on documents for select to throughline_scheduler using (true);
grant select (workspace_id, id, head_seq, tail_count, tail_bytes, deleted_at) on documents to throughline_scheduler;
grant create on schema public to throughline_scheduler;
set local role throughline_scheduler;
create function poll_documents(p_workspaces uuid[], p_documents uuid[])
    returns table (document_id uuid, head_seq bigint, tail_count integer, tail_bytes bigint, deleted boolean)
    language sql stable security definer set search_path = pg_catalog, public, pg_temp
as $$
    select d.id, d.head_seq, d.tail_count, d.tail_bytes, d.deleted_at is not null
    from unnest(p_workspaces, p_documents) as u (workspace, id)
    join documents d on d.workspace_id = u.workspace and d.id = u.id
$$;
reset role;
revoke create on schema public from throughline_scheduler;
revoke all on function poll_documents from public;
grant execute on function poll_documents to throughline_app;
