//! The whole product, called over its sockets.

mod catalogue;
mod decisions;
mod degraded;
mod drain;
mod events;
mod experiments;
mod flight;
mod health;
mod identity;
mod interleaving;
mod near;
mod news;
mod ofrep;
mod overlay;
mod personalize;
mod publish;
mod restore;
mod rulesets;
mod start_stop;
mod workers;
mod write_back;
