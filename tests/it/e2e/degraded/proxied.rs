//! Servers that are well, behind proxies that do to them what networks and dying servers do.

use std::time::Duration;

use bytes::Bytes;
use hyper::Request;

use super::{LOGS, PATIENCE, SICK, STORES, Way, at_the_start, in_flight, node};
use crate::support::app::call;
use crate::support::proxy::Weather;
use crate::support::stack::{Server, Sickness, Stack, Stores};

const REFUSES: Sickness = Sickness::Weather(Weather::Refuses);

const REFUSED: Way = ("refusing connections", REFUSES, SICK);
const SILENT: Way = (
    "silent (takes connections, answers nothing)",
    Sickness::Weather(Weather::Swallows),
    SICK,
);
const WAYS: [Way; 5] = [
    (
        "slow (every reply 300 ms late)",
        Sickness::Weather(Weather::Slow(Duration::from_millis(300))),
        SICK,
    ),
    SILENT,
    REFUSED,
    ("resetting connections", Sickness::Weather(Weather::Resets), SICK),
    (
        "cut in the middle of a reply",
        Sickness::Weather(Weather::Cuts(3)),
        SICK,
    ),
];

async fn stores() -> Stores {
    Stores::new(Stack::Networked).await.behind_proxies().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_fall_sick_in_flight_thin_answers_and_lose_nothing() {
    Box::pin(in_flight(
        "Servers that fall sick in flight",
        stores().await,
        &STORES,
        &WAYS,
    ))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_falls_sick_in_flight_turns_events_away_and_loses_none() {
    Box::pin(in_flight(
        "A log that falls sick in flight",
        stores().await,
        &LOGS,
        &WAYS,
    ))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_starts_without_its_servers_and_joins_them_later() {
    Box::pin(at_the_start(
        "Servers that are away at the start",
        stores().await,
        &STORES,
        &[REFUSED, SILENT],
    ))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_starts_without_its_log_and_joins_it_later() {
    Box::pin(at_the_start(
        "A log that is away at the start",
        stores().await,
        &LOGS,
        &[REFUSED, SILENT],
    ))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_key_that_shows_late_stops_the_node() {
    const ALL: &[Server] = &[Server::Log, Server::Hot, Server::Postgres];
    let stores = Stores::new(Stack::Networked).await.behind_proxies().await;
    let mut stores = node(stores).start().await.stop().await;
    stores.sicken(ALL, REFUSES);
    let other = node(stores).set("pseudonym_key", "k1:another-secret-key");
    let (config, mut stores) = other.config();
    let mut running = Box::pin(cartwright::app::App::start(config)).await.unwrap();
    let addr = running.operator_addr;
    let ready = async || {
        let request = Request::get("/health/ready").body(Bytes::new()).unwrap();
        call(addr, request).await.status
    };
    assert_eq!(ready().await, 200);
    stores.heal(ALL, REFUSES).await;
    let error = tokio::time::timeout(PATIENCE, running.failed()).await.unwrap();
    assert!(
        error
            .to_string()
            .contains("is not the key that this warehouse was filled with"),
        "{error}"
    );
    assert_eq!(ready().await, 503);
    Box::pin(running.stop()).await;
}
