-- The kill switch of experiences.

create table paused_experience (
    id text collate "C" not null primary key,
    paused_at timestamptz not null
);

comment on table paused_experience is 'Experiences that are not served, whatever the ruleset says.';
comment on column paused_experience.id is 'the experience''s id';
comment on column paused_experience.paused_at is 'when it was paused';
