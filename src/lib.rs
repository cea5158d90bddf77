//! Cartwright: low-latency personalization for e-commerce checkout.

pub mod app;
pub mod broadcast;
pub mod cli;
pub mod clock;
pub mod config;
pub mod deadline;
pub mod decisions;
pub mod domain;
pub mod drain;
pub mod experiments;
pub mod hot;
pub mod http;
pub mod import;
pub mod ingest;
pub mod keys;
pub mod listener;
pub mod operations;
pub mod population;
pub mod profiles;
pub mod queue;
pub mod recorder;
mod redis_link;
pub mod rulesets;
pub mod telemetry;
pub mod warehouse;
