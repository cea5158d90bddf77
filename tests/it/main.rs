//! The product from outside: one binary, so that it links once.

#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

mod compose;
mod config;
mod contract;
mod e2e;
mod golden;
mod import;
mod openapi;
mod process;
mod readme;
mod schema;
mod support;
