-- Who took part in which experiment, and what was lost of it.

create table fact_exposure (
    -- One row per experiment that a recorded decision took part in.
    shop text not null,
    decision_id text not null, -- fact_decision
    experiment text not null, -- the experience's id
    variant text not null, -- '#holdout': kept from it to compare with; '#served': its only variant, without a name
    subject text, -- who saw it; null where the shopper denied analytics
    ruleset_version integer not null, -- ruleset
    decided_at integer not null,
    day integer not null, -- of decided_at; dim_date
    primary key (shop, decision_id, experiment)
) strict, without rowid;

create index fact_exposure_experiment on fact_exposure (shop, experiment, subject);

create table exposure_loss (
    -- Shoppers who could not take part in an experiment since their exposure could not have been recorded.
    shop text not null,
    experiment text not null, -- the experience's id
    day integer not null, -- dim_date
    losses integer not null, -- decisions
    primary key (shop, experiment, day)
) strict, without rowid;
