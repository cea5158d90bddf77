-- Who took part in which experiment, and what was lost of it.

create table fact_exposure (
    shop text collate "C" not null,
    decision_id text collate "C" not null,
    experiment text collate "C" not null,
    variant text collate "C" not null,
    subject text collate "C",
    ruleset_version bigint not null,
    decided_at timestamptz not null,
    day date not null,
    primary key (shop, decision_id, experiment)
);

comment on table fact_exposure is 'One row per experiment that a recorded decision took part in.';
comment on column fact_exposure.shop is 'the shop and its environment: name/live or name/test';
comment on column fact_exposure.decision_id is 'fact_decision';
comment on column fact_exposure.experiment is 'the experience''s id';
comment on column fact_exposure.variant is '''#holdout'': kept from it to compare with; ''#served'': its only variant, without a name';
comment on column fact_exposure.subject is 'who saw it, a pseudonym; null where the shopper denied analytics';
comment on column fact_exposure.ruleset_version is 'ruleset';
comment on column fact_exposure.decided_at is 'when it was decided';
comment on column fact_exposure.day is 'of decided_at; dim_date';

create index fact_exposure_experiment on fact_exposure (shop, experiment, subject);

create table exposure_loss (
    shop text collate "C" not null,
    experiment text collate "C" not null,
    day date not null,
    losses bigint not null,
    primary key (shop, experiment, day)
);

comment on table exposure_loss is 'Shoppers who could not take part in an experiment since their exposure could not have been recorded.';
comment on column exposure_loss.shop is 'the shop and its environment: name/live or name/test';
comment on column exposure_loss.experiment is 'the experience''s id';
comment on column exposure_loss.day is 'dim_date';
comment on column exposure_loss.losses is 'decisions';
