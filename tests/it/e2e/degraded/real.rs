//! Servers that are paused (SIGSTOP) and resumed, or killed (SIGKILL) and started again.
//!
//! A paused server keeps its connections, and the system still takes new ones for it. The Redis of hot profiles comes back
//! empty from a kill, the other servers with all that they had acknowledged.

use std::time::Duration;

use cartwright::queue::LEASE;

use super::{LOGS, SICK, STORES, Way, at_the_start, in_flight};
use crate::support::stack::{Sickness, Stores};

const WAYS: [Way; 2] = [
    ("paused", Sickness::Paused, SICK),
    ("killed", Sickness::Killed, SICK),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_servers_that_are_paused_or_killed_under_load_thin_answers_and_lose_nothing() {
    Box::pin(in_flight(
        "Real servers, paused or killed in flight",
        Stores::on_own_servers().await,
        &STORES,
        &WAYS,
    ))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_log_that_is_paused_or_killed_under_load_turns_events_away_and_loses_none() {
    Box::pin(in_flight(
        "A real log, paused or killed in flight",
        Stores::on_own_servers().await,
        &LOGS,
        &WAYS,
    ))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lanes_whose_leases_ran_out_while_their_log_was_away_go_on_where_they_were() {
    let lasts = LEASE + Duration::from_secs(2);
    Box::pin(in_flight(
        "A real log, away for longer than a lease lasts",
        Stores::on_own_servers().await,
        &LOGS[..1],
        &[
            ("paused for seven seconds", Sickness::Paused, lasts),
            ("killed for seven seconds", Sickness::Killed, lasts),
        ],
    ))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_starts_while_its_real_servers_are_paused_or_killed() {
    Box::pin(at_the_start(
        "Real servers, paused or killed at the start",
        Stores::on_own_servers().await,
        &STORES,
        &WAYS,
    ))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_starts_while_its_real_log_is_paused_or_killed() {
    Box::pin(at_the_start(
        "A real log, paused or killed at the start",
        Stores::on_own_servers().await,
        &LOGS,
        &WAYS,
    ))
    .await;
}
