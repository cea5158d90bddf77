-- The kill switch of experiences.

create table paused_experience (
    -- Experiences that are not served, whatever the ruleset says.
    id text not null primary key, -- the experience's id
    paused_at integer not null
) strict, without rowid;
