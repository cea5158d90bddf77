-- The star schema, the profiles and the bookkeeping of the view.
-- Subjects and sessions are keyed pseudonyms (`a:…` an anonymous id, `u:…` a user id); nothing here is a raw identifier.
-- Money is integer minor units of the currency beside it.
-- "Rank" columns (verified, event_time, event_id) say which report of a thing won: the greatest.
-- Keys are compared byte by byte (collate "C"): every writer locks rows in that order, whatever the database's language.

create table warehouse_meta (
    key text collate "C" primary key,
    value text not null
);

comment on table warehouse_meta is 'Facts about this warehouse as a whole.';
comment on column warehouse_meta.key is '''epoch'': of this life of the warehouse, delete it after restoring a backup; ''key_check_value'': of the pseudonym key';
comment on column warehouse_meta.value is 'the fact';

create table position (
    partition integer primary key,
    log_id uuid not null,
    next_offset bigint not null,
    change_seq bigint not null,
    updated_at timestamptz not null
);

comment on table position is 'How far each partition of the log is applied. Moved in the transaction that writes the rows, which holds this row''s lock from its start.';
comment on column position.partition is 'of the log';
comment on column position.log_id is 'which log';
comment on column position.next_offset is 'of the first record not applied yet';
comment on column position.change_seq is 'the greatest number given to a change of a profile by this partition';
comment on column position.updated_at is 'when the last batch was applied';

create table event_seen (
    shop text collate "C" not null,
    event_id text collate "C" not null,
    prunable_time timestamptz,
    primary key (shop, event_id)
);

comment on table event_seen is 'Event ids already counted. Pruned by dedupe.window.';
comment on column event_seen.shop is 'the shop and its environment: name/live or name/test';
comment on column event_seen.event_id is 'unique within the shop';
comment on column event_seen.prunable_time is 'the id may be forgotten once the window has passed this; null: an import, kept for good';

create index event_seen_prunable on event_seen (prunable_time) where prunable_time is not null;

create table quarantine (
    log_id uuid not null,
    partition integer not null,
    log_offset bigint not null,
    code text not null,
    detail text not null,
    shop text collate "C",
    event_id text collate "C",
    event json,
    record bytea,
    quarantined_at timestamptz not null,
    primary key (log_id, partition, log_offset)
);

comment on table quarantine is 'Records that are not counted, with the reason.';
comment on column quarantine.log_id is 'the log in which the record stands';
comment on column quarantine.partition is 'the partition in which the record stands';
comment on column quarantine.log_offset is 'where in the partition the record stands';
comment on column quarantine.code is 'the stable reason code';
comment on column quarantine.detail is 'the reason in words';
comment on column quarantine.shop is 'null where the record could not be read';
comment on column quarantine.event_id is 'null where the record could not be read';
comment on column quarantine.event is 'the event';
comment on column quarantine.record is 'the record''s bytes where it could not be read';
comment on column quarantine.quarantined_at is 'when it was set aside';

create table ruleset (
    version bigint primary key,
    source text not null,
    created_at timestamptz not null
);

comment on table ruleset is 'Every ruleset that was ever in force.';
comment on column ruleset.version is 'counts up';
comment on column ruleset.source is 'the YAML text';
comment on column ruleset.created_at is 'when it was stored';

create table dim_date (
    day date primary key,
    year integer not null,
    quarter integer not null,
    month integer not null,
    day_of_month integer not null,
    weekday integer not null
);

comment on table dim_date is 'One row per day that a fact refers to.';
comment on column dim_date.day is 'the day, UTC';
comment on column dim_date.year is 'the year';
comment on column dim_date.quarter is '1 to 4';
comment on column dim_date.month is '1 to 12';
comment on column dim_date.day_of_month is '1 to 31';
comment on column dim_date.weekday is 'ISO 8601: 1 Monday to 7 Sunday';

create table dim_source (
    source text collate "C" primary key,
    is_verified boolean not null,
    description text not null
);

comment on table dim_source is 'Where events come in.';
comment on column dim_source.source is 'the name that fact_event uses';
comment on column dim_source.is_verified is 'what it says of orders goes before unverified reports';
comment on column dim_source.description is 'the source in words';

insert into dim_source (source, is_verified, description) values
    ('public', false, 'a public key: a browser or an app'),
    ('server', true, 'a server key: the shop''s own back end'),
    ('import', true, 'cartwright import, on behalf of a server key'),
    ('internal', true, 'Cartwright itself: decision records');

create table dim_product (
    shop text collate "C" not null,
    item text collate "C" not null,
    name text,
    category text,
    price_minor bigint,
    currency text,
    is_charge boolean not null,
    name_time timestamptz,
    name_event text collate "C",
    category_time timestamptz,
    category_event text collate "C",
    price_time timestamptz,
    price_event text collate "C",
    charge_time timestamptz not null,
    charge_event text collate "C" not null,
    primary key (shop, item)
);

comment on table dim_product is 'What events said of a product. The latest value of each field stays.';
comment on column dim_product.shop is 'the shop and its environment: name/live or name/test';
comment on column dim_product.item is 'the product id or SKU';
comment on column dim_product.name is 'the name last said';
comment on column dim_product.category is 'the category last said';
comment on column dim_product.price_minor is 'the unit price last seen';
comment on column dim_product.currency is 'of price_minor';
comment on column dim_product.is_charge is 'postage, fees; never recommended';
comment on column dim_product.name_time is 'when the name was said';
comment on column dim_product.name_event is 'which event said the name';
comment on column dim_product.category_time is 'when the category was said';
comment on column dim_product.category_event is 'which event said the category';
comment on column dim_product.price_time is 'when the price was said';
comment on column dim_product.price_event is 'which event said the price';
comment on column dim_product.charge_time is 'when is_charge was said';
comment on column dim_product.charge_event is 'which event said is_charge';

create table fact_event (
    shop text collate "C" not null,
    event_id text collate "C" not null,
    name text not null,
    anonymous_id text collate "C",
    user_id text collate "C",
    claimed_user_id text collate "C",
    session_id text collate "C",
    source text collate "C" not null,
    event_time timestamptz not null,
    received_at timestamptz not null,
    day date not null,
    consent_analytics text,
    consent_personalization text,
    partition integer not null,
    log_offset bigint not null,
    body json not null
) partition by range (received_at);

comment on table fact_event is 'One row per event. Partitioned by month of receipt; fact_event_drop_before() is the retention.';
comment on column fact_event.shop is 'the shop and its environment: name/live or name/test';
comment on column fact_event.event_id is 'unique within the shop (event_seen)';
comment on column fact_event.name is 'of the Segment E-commerce Spec V2, or a custom one';
comment on column fact_event.anonymous_id is 'the shopper''s device, a pseudonym';
comment on column fact_event.user_id is 'the shopper, a pseudonym; proven';
comment on column fact_event.claimed_user_id is 'the shopper, a pseudonym; merely claimed';
comment on column fact_event.session_id is 'the visit, a pseudonym';
comment on column fact_event.source is 'dim_source';
comment on column fact_event.event_time is 'when it happened, corrected for the sender''s clock';
comment on column fact_event.received_at is 'when it was received; the partition key';
comment on column fact_event.day is 'of received_at; dim_date';
comment on column fact_event.consent_analytics is '''granted'', ''denied'' or null where the event did not say';
comment on column fact_event.consent_personalization is '''granted'', ''denied'' or null where the event did not say';
comment on column fact_event.partition is 'the partition of the log in which the record stood';
comment on column fact_event.log_offset is 'where in the partition the record stood';
comment on column fact_event.body is '{"properties":{…},"context":{…}}';

-- Rows come in by time of receipt, so a block's range says where to look, and costs next to nothing to keep.
create index fact_event_received on fact_event using brin (received_at, day);

create function fact_event_make_partitions(months date[]) returns void language plpgsql as $$
declare
    wanted date;
    child text;
begin
    -- One at a time: two nodes make the same partition at the turn of a month.
    perform pg_advisory_xact_lock(hashtext('fact_event_make_partitions'), 0);
    for wanted in select distinct date_trunc('month', month)::date from unnest(months) as month order by 1 loop
        child := 'fact_event_' || to_char(wanted, 'YYYYMM');
        if to_regclass(child) is null then
            -- Made apart and attached afterwards, writers of the other partitions do not wait.
            execute format('create table %I (like fact_event including all)', child);
            execute format('comment on table %I is %L', child, 'fact_event: received in ' || to_char(wanted, 'YYYY-MM'));
            execute format('alter table fact_event attach partition %I for values from (%L) to (%L)', child,
                           wanted::timestamp at time zone 'UTC',
                           (wanted + interval '1 month')::timestamp at time zone 'UTC');
        end if;
    end loop;
end $$;
comment on function fact_event_make_partitions is 'Makes the missing partitions of fact_event for the months of these days.';

create function fact_event_drop_before(day date) returns setof text language plpgsql as $$
declare
    child text;
begin
    for child in
        select relation.relname from pg_inherits join pg_class as relation on relation.oid = inhrelid
        where inhparent = 'fact_event'::regclass
        and relation.relname ~ '^fact_event_[0-9]{6}$'
        and to_date(right(relation.relname, 6), 'YYYYMM') + interval '1 month' <= day
        order by 1
    loop
        execute format('drop table %I', child);
        return next child;
    end loop;
end $$;
comment on function fact_event_drop_before is
    'Retention: drops the partitions of fact_event whose whole month lies before the day; returns their names.';

create table order_lock (
    shop text collate "C" not null,
    order_id text collate "C" not null,
    primary key (shop, order_id)
);

comment on table order_lock is 'One row per order ever reported: locked before the order is judged, since its reports, cancellations and refunds may come through several partitions at once.';
comment on column order_lock.shop is 'the shop and its environment: name/live or name/test';
comment on column order_lock.order_id is 'the order; empty for refunds that do not name one';

create table fact_order (
    shop text collate "C" not null,
    order_id text collate "C" not null,
    verified boolean not null,
    event_time timestamptz not null,
    event_id text collate "C" not null,
    subject text collate "C",
    day date not null,
    currency text not null,
    total_minor bigint not null,
    payment_method text,
    shipping_method text,
    coupon text,
    cancelled boolean not null,
    generation bigint not null,
    primary key (shop, order_id)
);

comment on table fact_order is 'One row per order: the winning report.';
comment on column fact_order.shop is 'the shop and its environment: name/live or name/test';
comment on column fact_order.order_id is 'the order, unique within the shop';
comment on column fact_order.verified is 'rank: reported by the shop''s own back end, not by a browser';
comment on column fact_order.event_time is 'rank: when the reporting event happened';
comment on column fact_order.event_id is 'rank: the reporting event';
comment on column fact_order.subject is 'whose order it is, a pseudonym; null where nobody is named';
comment on column fact_order.day is 'of event_time; dim_date';
comment on column fact_order.currency is 'of the amounts';
comment on column fact_order.total_minor is 'the sum of the lines, else the stated total, in minor units';
comment on column fact_order.payment_method is 'how it was paid';
comment on column fact_order.shipping_method is 'how it is shipped';
comment on column fact_order.coupon is 'the coupon used';
comment on column fact_order.cancelled is 'an order_cancellation stands';
comment on column fact_order.generation is 'of the part that the order was folded into';

create index fact_order_time on fact_order (shop, event_time);

create table fact_order_line (
    shop text collate "C" not null,
    order_id text collate "C" not null,
    line bigint not null,
    item text collate "C" not null,
    category text,
    quantity bigint not null,
    unit_price text not null,
    amount_minor bigint not null,
    currency text not null,
    is_charge boolean not null,
    primary key (shop, order_id, line)
);

comment on table fact_order_line is 'The lines of the winning report.';
comment on column fact_order_line.shop is 'the shop and its environment: name/live or name/test';
comment on column fact_order_line.order_id is 'fact_order';
comment on column fact_order_line.line is 'from 1, in the order sent';
comment on column fact_order_line.item is 'dim_product';
comment on column fact_order_line.category is 'of the item, as sent';
comment on column fact_order_line.quantity is 'how many';
comment on column fact_order_line.unit_price is 'decimal, as sent';
comment on column fact_order_line.amount_minor is 'quantity times unit price, rounded half-even to minor units';
comment on column fact_order_line.currency is 'of amount_minor';
comment on column fact_order_line.is_charge is 'postage, fees';

create table order_cancellation (
    shop text collate "C" not null,
    order_id text collate "C" not null,
    verified boolean not null,
    event_time timestamptz not null,
    event_id text collate "C" not null,
    primary key (shop, order_id)
);

comment on table order_cancellation is 'Orders reported as cancelled, whether or not the order itself is known yet.';
comment on column order_cancellation.shop is 'the shop and its environment: name/live or name/test';
comment on column order_cancellation.order_id is 'fact_order';
comment on column order_cancellation.verified is 'rank: reported by the shop''s own back end, not by a browser';
comment on column order_cancellation.event_time is 'rank: when the reporting event happened';
comment on column order_cancellation.event_id is 'rank: the reporting event';

create table fact_refund (
    shop text collate "C" not null,
    order_id text collate "C" not null,
    refund_id text collate "C" not null,
    verified boolean not null,
    event_time timestamptz not null,
    event_id text collate "C" not null,
    subject text collate "C",
    day date not null,
    currency text not null,
    amount_minor bigint not null,
    generation bigint not null,
    primary key (shop, order_id, refund_id)
);

comment on table fact_refund is 'One row per refund: the winning report.';
comment on column fact_refund.shop is 'the shop and its environment: name/live or name/test';
comment on column fact_refund.order_id is 'fact_order; empty where the original order is not named';
comment on column fact_refund.refund_id is 'the refund''s own id, else the event''s';
comment on column fact_refund.verified is 'rank: reported by the shop''s own back end, not by a browser';
comment on column fact_refund.event_time is 'rank: when the reporting event happened';
comment on column fact_refund.event_id is 'rank: the reporting event';
comment on column fact_refund.subject is 'whose refund it is, a pseudonym';
comment on column fact_refund.day is 'of event_time; dim_date';
comment on column fact_refund.currency is 'of amount_minor';
comment on column fact_refund.amount_minor is 'positive, in minor units';
comment on column fact_refund.generation is 'of the part that the refund was folded into';

create table fact_decision (
    shop text collate "C" not null,
    decision_id text collate "C" not null,
    placement text collate "C" not null,
    subject text collate "C",
    experience text,
    variant text,
    reason text not null,
    ruleset_version bigint not null,
    decided_at timestamptz not null,
    day date not null,
    primary key (shop, decision_id, placement)
);

comment on table fact_decision is 'One row per placement of a recorded decision.';
comment on column fact_decision.shop is 'the shop and its environment: name/live or name/test';
comment on column fact_decision.decision_id is 'the decision, unique within the shop';
comment on column fact_decision.placement is 'the place on the page';
comment on column fact_decision.subject is 'whose page it was, a pseudonym';
comment on column fact_decision.experience is 'the experience served';
comment on column fact_decision.variant is 'its variant';
comment on column fact_decision.reason is 'a closed list: targeting_match, split, …';
comment on column fact_decision.ruleset_version is 'ruleset';
comment on column fact_decision.decided_at is 'when it was decided';
comment on column fact_decision.day is 'of decided_at; dim_date';

create table decision_record (
    shop text collate "C" not null,
    decision_id text collate "C" not null,
    facts json not null,
    primary key (shop, decision_id)
);

comment on table decision_record is 'The facts of a recorded decision: enough to compute it again.';
comment on column decision_record.shop is 'the shop and its environment: name/live or name/test';
comment on column decision_record.decision_id is 'fact_decision';
comment on column decision_record.facts is 'the request, the profile as read, its version';

create table identity (
    shop text collate "C" not null,
    anonymous_id text collate "C" not null,
    user_id text collate "C" not null,
    proof text,
    first_time timestamptz,
    first_event text collate "C",
    last_time timestamptz,
    last_event text collate "C",
    unlink_time timestamptz,
    unlink_event text collate "C",
    primary key (anonymous_id, user_id, shop)
);

comment on table identity is 'Links between an anonymous id and a user id, each with its proof.';
comment on column identity.shop is 'the shop and its environment: name/live or name/test';
comment on column identity.anonymous_id is 'the device, a pseudonym';
comment on column identity.user_id is 'the user, a pseudonym';
comment on column identity.proof is '''server_key'' or ''user_token'': of the latest link; null where only an unlink is known';
comment on column identity.first_time is 'when the earliest link was made';
comment on column identity.first_event is 'which event made the earliest link';
comment on column identity.last_time is 'when the latest link was made';
comment on column identity.last_event is 'which event made the latest link';
comment on column identity.unlink_time is 'when the latest unlink was made';
comment on column identity.unlink_event is 'which event made the latest unlink';

create index identity_user on identity (user_id, shop);

create table identity_alias (
    shop text collate "C" not null,
    user_id text collate "C" not null,
    previous_id text collate "C" not null,
    primary key (user_id, previous_id, shop)
);

comment on table identity_alias is 'Pairs of known users that a server declared to be one person.';
comment on column identity_alias.shop is 'the shop and its environment: name/live or name/test';
comment on column identity_alias.user_id is 'one user, a pseudonym';
comment on column identity_alias.previous_id is 'the other, a pseudonym';

create index identity_alias_previous on identity_alias (previous_id, shop);

create table profile_part (
    shop text collate "C" not null,
    subject text collate "C" not null,
    part bytea not null,
    primary key (subject, shop)
);

comment on table profile_part is 'What each identity did by itself. A customer''s document is the merge of its linked parts. A batch locks the rows of everybody it may change, in key order, before it reads the links.';
comment on column profile_part.shop is 'the shop and its environment: name/live or name/test';
comment on column profile_part.subject is 'the identity, a pseudonym';
comment on column profile_part.part is 'encoded: a format byte, then the fields; a freshly locked identity has an empty one';

-- Bytes that are already dense; rewritten often, so room is left beside each row.
alter table profile_part alter column part set storage external;
alter table profile_part set (fillfactor = 70);

create table customer_profile (
    shop text collate "C" not null,
    subject text collate "C" not null,
    linked_user_id text collate "C",
    epoch bigint not null,
    n bigint not null,
    partition integer not null,
    change_seq bigint not null,
    as_of json not null,
    first_seen timestamptz,
    last_seen timestamptz,
    last_order timestamptz,
    orders bigint not null,
    cancelled_orders bigint not null,
    refunds bigint not null,
    currency text,
    revenue_minor bigint not null,
    refunded_minor bigint not null,
    document bytea not null,
    primary key (subject, shop)
);

comment on table customer_profile is 'The document of each subject: of a guest its own part, of a user the merge of all its parts.';
comment on column customer_profile.shop is 'the shop and its environment: name/live or name/test';
comment on column customer_profile.subject is 'the guest or user, a pseudonym';
comment on column customer_profile.linked_user_id is 'of a guest: the user whose document holds its part too';
comment on column customer_profile.epoch is 'version: the warehouse''s life';
comment on column customer_profile.n is 'version: counts the writes of this document';
comment on column customer_profile.partition is 'whose batch wrote it last';
comment on column customer_profile.change_seq is 'orders the writes of one partition';
comment on column customer_profile.as_of is 'per partition, the offset of the next record that is not folded: [[partition, offset], …]';
comment on column customer_profile.first_seen is 'the earliest event';
comment on column customer_profile.last_seen is 'the latest event';
comment on column customer_profile.last_order is 'the latest order';
comment on column customer_profile.orders is 'not cancelled';
comment on column customer_profile.cancelled_orders is 'cancelled';
comment on column customer_profile.refunds is 'refunds counted';
comment on column customer_profile.currency is 'the one most orders, else most refunds, are in';
comment on column customer_profile.revenue_minor is 'in that currency, in minor units, before refunds';
comment on column customer_profile.refunded_minor is 'in that currency, in minor units';
comment on column customer_profile.document is 'encoded: version, as_of, linked user and part';

alter table customer_profile alter column document set storage external;
create index customer_profile_change on customer_profile (partition, change_seq);

create table customer_segment (
    shop text collate "C" not null,
    subject text collate "C" not null,
    segment text collate "C" not null,
    since timestamptz not null,
    primary key (subject, segment, shop)
);

comment on table customer_segment is 'The segments of each subject, as of its document''s last write.';
comment on column customer_segment.shop is 'the shop and its environment: name/live or name/test';
comment on column customer_segment.subject is 'the guest or user, a pseudonym';
comment on column customer_segment.segment is 'the segment''s name in the ruleset';
comment on column customer_segment.since is 'when the subject came into it';

create view dim_customer as
select shop, subject, coalesce(linked_user_id, subject) as customer_id, subject like 'u:%' as is_user,
       first_seen, last_seen, last_order, orders, cancelled_orders, refunds, currency, revenue_minor, refunded_minor
from customer_profile;
comment on view dim_customer is 'The flat side of customer_profile: one row per guest and per user.';
comment on column dim_customer.shop is 'the shop and its environment: name/live or name/test';
comment on column dim_customer.subject is 'the guest or user, a pseudonym';
comment on column dim_customer.customer_id is 'the user whom a guest is linked to, else the subject itself';
comment on column dim_customer.is_user is 'a user, not a guest';
comment on column dim_customer.first_seen is 'the earliest event';
comment on column dim_customer.last_seen is 'the latest event';
comment on column dim_customer.last_order is 'the latest order';
comment on column dim_customer.orders is 'not cancelled';
comment on column dim_customer.cancelled_orders is 'cancelled';
comment on column dim_customer.refunds is 'refunds counted';
comment on column dim_customer.currency is 'the one most orders, else most refunds, are in';
comment on column dim_customer.revenue_minor is 'in that currency, in minor units, before refunds';
comment on column dim_customer.refunded_minor is 'in that currency, in minor units';
