-- What the lane touches in every batch, made small. No version that wrote the former shape was ever released; a worker of one would
-- stop at its first batch and leave its events in the log, since event_seen has other columns now.

-- Sixteen bytes instead of shop and event id as text: ids are random, so each is a page of its own in table and index.
create function event_digest(shop text, event_id text) returns uuid
    language sql immutable strict parallel safe
    return encode(substr(sha256(convert_to(shop || chr(10) || event_id, 'UTF8')), 1, 16), 'hex')::uuid;
comment on function event_digest is 'How event_seen knows an event: the first 128 bits of the SHA-256 of shop, newline and event id.';

create table event_seen_by_digest (
    digest uuid not null,
    prunable_time timestamptz
);
insert into event_seen_by_digest select event_digest(shop, event_id), prunable_time from event_seen order by 1;
drop table event_seen;
alter table event_seen_by_digest rename to event_seen;
alter table event_seen add primary key (digest);
create index event_seen_prunable on event_seen (prunable_time) where prunable_time is not null;

comment on table event_seen is 'Event ids already counted. Pruned by dedupe.window.';
comment on column event_seen.digest is 'event_digest(shop, event_id)';
comment on column event_seen.prunable_time is 'the id may be forgotten once the window has passed this; null: an import, kept for good';

-- Nearly everybody's part is the one in the document: written once instead of twice. The row stays, as the lock.
alter table profile_part add column in_document boolean not null default false;
alter table profile_part reset (fillfactor);
comment on column profile_part.part is 'encoded: a format byte, then the fields; empty where it is in the document';
comment on column profile_part.in_document is 'the part is the one in customer_profile.document, and empty where there is none';

-- Rows that are rewritten in place: with room beside them a new version goes into the same page. Documents of over 2 KiB stay in
-- the row, instead of being cut up, deleted and inserted again with each version.
alter table dim_product set (fillfactor = 50);
alter table customer_profile set (fillfactor = 60, toast_tuple_target = 8160);
