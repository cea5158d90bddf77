-- Nearly everybody's part is the one in the document: written once instead of twice.

alter table profile_part add column in_document integer not null default 0; -- 1: the part is the one in customer_profile.document; part is empty
