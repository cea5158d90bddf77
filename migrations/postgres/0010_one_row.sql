-- An identity's part is in the row of its document, and that row is its lock: one look-up, one lock and one write for each, where there
-- were two. No version that kept the rows apart was ever released; a worker of one stops where it would insert into the view, and leaves
-- its events in the log.
alter table customer_profile add column own_part bytea;
alter table customer_profile alter column own_part set storage external;
comment on column customer_profile.own_part is 'encoded: what a user did by itself, where others are merged into its document; null: the document''s part';

-- What has no document did nothing, for the two were written together; a part of somebody who did is never dropped unread.
do $$ begin
    if exists (select from profile_part as s where not s.in_document and s.part <> ''
               and not exists (select from customer_profile as p where p.subject = s.subject and p.shop = s.shop)) then
        raise exception 'profile_part has parts without a document, which no version of Cartwright writes; nothing was changed';
    end if;
end $$;
update customer_profile as p set own_part = s.part from profile_part as s
where s.subject = p.subject and s.shop = p.shop and not s.in_document;
drop table profile_part;

create view profile_part as
select shop, subject, coalesce(own_part, document) as part, own_part is null as in_document
from customer_profile;
comment on view profile_part is 'What each identity did by itself. A customer''s document is the merge of its linked parts.';
comment on column profile_part.shop is 'the shop and its environment: name/live or name/test';
comment on column profile_part.subject is 'the identity, a pseudonym';
comment on column profile_part.part is 'encoded: a format byte, then the fields; of a whole document where in_document';
comment on column profile_part.in_document is 'the part is the one in customer_profile.document';
