-- The star schema, the profiles and the bookkeeping of the view.
-- Instants are milliseconds since the Unix epoch, UTC. Days are whole days since the epoch, UTC.
-- Subjects and sessions are keyed pseudonyms (`a:…` an anonymous id, `u:…` a user id); nothing here is a raw identifier.
-- Money is integer minor units of the currency beside it.
-- "Rank" columns (verified, event_time, event_id) say which report of a thing won: the greatest.

create table warehouse_meta (
    -- Facts about this warehouse as a whole.
    key text not null primary key, -- 'epoch': of this life of the warehouse, delete it after restoring a backup; 'key_check_value': of the pseudonym key
    value text not null
) strict, without rowid;

create table position (
    -- How far each partition of the log is applied. Moved in the transaction that writes the rows.
    partition integer not null primary key, -- of the log
    log_id text not null, -- which log: a UUID
    next_offset integer not null, -- of the first record not applied yet
    change_seq integer not null, -- the greatest number given to a change of a profile by this partition
    updated_at integer not null -- when the last batch was applied
) strict;

create table event_seen (
    -- Event ids already counted. Pruned by dedupe.window.
    shop text not null,
    event_id text not null,
    prunable_time integer, -- the id may be forgotten once the window has passed this; null: an import, kept for good
    primary key (shop, event_id)
) strict, without rowid;

create table quarantine (
    -- Records that are not counted, with the reason.
    log_id text not null, -- where the record stands in the log
    partition integer not null,
    log_offset integer not null,
    code text not null, -- the stable reason code
    detail text not null, -- the reason in words
    shop text, -- null where the record could not be read
    event_id text,
    event text, -- the event as JSON
    record blob, -- the record's bytes where it could not be read
    quarantined_at integer not null,
    primary key (log_id, partition, log_offset)
) strict, without rowid;

create table ruleset (
    -- Every ruleset that was ever in force.
    version integer not null primary key, -- counts up
    source text not null, -- the YAML text
    created_at integer not null
) strict;

create table dim_date (
    -- One row per day that a fact refers to.
    day integer not null primary key,
    date text not null, -- YYYY-MM-DD
    year integer not null,
    quarter integer not null, -- 1 to 4
    month integer not null, -- 1 to 12
    day_of_month integer not null, -- 1 to 31
    weekday integer not null -- ISO 8601: 1 Monday to 7 Sunday
) strict;

create table dim_source (
    -- Where events come in.
    source text not null primary key,
    is_verified integer not null, -- 1: what it says of orders goes before unverified reports
    description text not null
) strict, without rowid;

insert into dim_source (source, is_verified, description) values
    ('public', 0, 'a public key: a browser or an app'),
    ('server', 1, 'a server key: the shop''s own back end'),
    ('import', 1, 'cartwright import, on behalf of a server key'),
    ('internal', 1, 'Cartwright itself: decision records');

create table dim_product (
    -- What events said of a product. The latest value of each field stays.
    shop text not null,
    item text not null, -- the product id or SKU
    name text,
    category text,
    price_minor integer, -- the unit price last seen
    currency text, -- of price_minor
    is_charge integer not null, -- 1: postage, fees; never recommended
    name_time integer, -- when the name was said, and by which event
    name_event text,
    category_time integer, -- when the category was said, and by which event
    category_event text,
    price_time integer, -- when the price was said, and by which event
    price_event text,
    charge_time integer not null, -- when is_charge was said, and by which event
    charge_event text not null,
    primary key (shop, item)
) strict, without rowid;

create table fact_event (
    -- One row per event, in the order applied: by time of receipt within a partition.
    id integer not null primary key,
    shop text not null,
    event_id text not null, -- unique within the shop (event_seen)
    name text not null, -- of the Segment E-commerce Spec V2, or a custom one
    anonymous_id text,
    user_id text, -- proven
    claimed_user_id text, -- merely claimed
    session_id text,
    source text not null, -- dim_source
    event_time integer not null, -- when it happened, corrected for the sender's clock
    received_at integer not null,
    day integer not null, -- of received_at; dim_date
    consent_analytics text, -- 'granted', 'denied' or null where the event did not say
    consent_personalization text,
    partition integer not null, -- where the record stood in the log
    log_offset integer not null,
    body text not null -- {"properties":{…},"context":{…}}
) strict;

create index fact_event_day on fact_event (day);

create table fact_order (
    -- One row per order: the winning report.
    shop text not null,
    order_id text not null,
    verified integer not null, -- rank
    event_time integer not null, -- rank
    event_id text not null, -- rank
    subject text, -- whose order it is; null where nobody is named
    day integer not null, -- of event_time; dim_date
    currency text not null,
    total_minor integer not null, -- the sum of the lines, else the stated total
    payment_method text,
    shipping_method text,
    coupon text,
    cancelled integer not null, -- 1: an order_cancellation stands
    generation integer not null, -- of the part that the order was folded into
    primary key (shop, order_id)
) strict, without rowid;

create index fact_order_time on fact_order (shop, event_time);

create table fact_order_line (
    -- The lines of the winning report.
    shop text not null,
    order_id text not null,
    line integer not null, -- from 1, in the order sent
    item text not null, -- dim_product
    category text,
    quantity integer not null,
    unit_price text not null, -- decimal, as sent
    amount_minor integer not null, -- quantity times unit price, rounded half-even
    currency text not null,
    is_charge integer not null, -- 1: postage, fees
    primary key (shop, order_id, line)
) strict, without rowid;

create table order_cancellation (
    -- Orders reported as cancelled, whether or not the order itself is known yet.
    shop text not null,
    order_id text not null,
    verified integer not null, -- rank
    event_time integer not null, -- rank
    event_id text not null, -- rank
    primary key (shop, order_id)
) strict, without rowid;

create table fact_refund (
    -- One row per refund: the winning report.
    shop text not null,
    order_id text not null, -- empty where the original order is not named
    refund_id text not null, -- the refund's own id, else the event's
    verified integer not null, -- rank
    event_time integer not null, -- rank
    event_id text not null, -- rank
    subject text, -- whose refund it is
    day integer not null, -- of event_time; dim_date
    currency text not null,
    amount_minor integer not null, -- positive
    generation integer not null, -- of the part that the refund was folded into
    primary key (shop, order_id, refund_id)
) strict, without rowid;

create table fact_decision (
    -- One row per placement of a recorded decision.
    shop text not null,
    decision_id text not null,
    placement text not null,
    subject text, -- whose page it was
    experience text,
    variant text,
    reason text not null, -- a closed list: targeting_match, split, …
    ruleset_version integer not null, -- ruleset
    decided_at integer not null,
    day integer not null, -- of decided_at; dim_date
    primary key (shop, decision_id, placement)
) strict, without rowid;

create table decision_record (
    -- The facts of a recorded decision: enough to compute it again.
    shop text not null,
    decision_id text not null,
    facts text not null, -- JSON: the request, the profile as read, its version
    primary key (shop, decision_id)
) strict, without rowid;

create table identity (
    -- Links between an anonymous id and a user id, each with its proof.
    shop text not null,
    anonymous_id text not null,
    user_id text not null,
    proof text, -- 'server_key' or 'user_token': of the latest link; null where only an unlink is known
    first_time integer, -- the earliest link, and the event that made it
    first_event text,
    last_time integer, -- the latest link, and the event that made it
    last_event text,
    unlink_time integer, -- the latest unlink, and the event that made it
    unlink_event text,
    primary key (anonymous_id, user_id, shop)
) strict, without rowid;

create index identity_user on identity (user_id, shop);

create table identity_alias (
    -- Pairs of known users that a server declared to be one person.
    shop text not null,
    user_id text not null,
    previous_id text not null,
    primary key (user_id, previous_id, shop)
) strict, without rowid;

create index identity_alias_previous on identity_alias (previous_id, shop);

create table profile_part (
    -- What each identity did by itself. A customer's document is the merge of its linked parts.
    id integer not null primary key,
    shop text not null,
    subject text not null,
    part blob not null, -- encoded: a format byte, then the fields
    unique (subject, shop)
) strict;

create table customer_profile (
    -- The document of each subject: of a guest its own part, of a user the merge of all its parts.
    id integer not null primary key,
    shop text not null,
    subject text not null,
    linked_user_id text, -- of a guest: the user whose document holds its part too
    epoch integer not null, -- version: the warehouse's life
    n integer not null, -- version: counts the writes of this document
    partition integer not null, -- whose batch wrote it last
    change_seq integer not null, -- orders the writes of one partition
    as_of text not null, -- JSON: per partition, the offset of the next record that is not folded: [[partition, offset], …]
    first_seen integer,
    last_seen integer,
    last_order integer,
    orders integer not null, -- not cancelled
    cancelled_orders integer not null,
    refunds integer not null,
    currency text, -- the one most orders, else most refunds, are in
    revenue_minor integer not null, -- in that currency, before refunds
    refunded_minor integer not null, -- in that currency
    document blob not null, -- encoded: version, as_of, linked user and part
    unique (subject, shop)
) strict;

create index customer_profile_change on customer_profile (partition, change_seq);

create view dim_customer as
    -- The flat side of customer_profile: one row per guest and per user.
    -- customer_id: the user whom a guest is linked to, else the subject itself.
    select shop, subject, coalesce(linked_user_id, subject) as customer_id, subject like 'u:%' as is_user,
           first_seen, last_seen, last_order, orders, cancelled_orders, refunds, currency, revenue_minor,
           refunded_minor
    from customer_profile;

create table customer_segment (
    -- The segments of each subject, as of its document's last write.
    shop text not null,
    subject text not null,
    segment text not null,
    since integer not null, -- when the subject came into it
    primary key (subject, segment, shop)
) strict, without rowid;
