//! The whole service on a simulated disk that loses power: everything unsynced is gone, sector by sector.
//!
//! `kill -9` leaves the page cache alone, so it cannot tell a log that syncs from one that forgets to. Here the log lies
//! on [`SimDisk`]; the warehouse on the real disk keeps what it committed. A life of the service that lost its power is
//! left running, as a zombie with a dead disk, beside the next one: its lane must do no harm either.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cartwright::app::{App, Running};
use cartwright::config::Config;
use cartwright::queue::QueueConfig;
use cartwright::queue::sim::SimDisk;

use super::load::{Ledger, Writers, compare};
use crate::support::app::TestApp;
use crate::support::process::SERVER_KEY;
use crate::support::rounds;

/// A life in which nobody reaches the chosen operation ends all the same.
const LIFE: Duration = Duration::from_millis(400);
const PATIENCE: Duration = Duration::from_secs(60);

/// Small segments, so that a life goes through several.
fn log() -> QueueConfig {
    QueueConfig {
        partitions: 1,
        url: "disk:unused".to_owned(),
        limit_bytes: 64 << 20,
        retain: Duration::ZERO,
        retain_bytes: 0,
        segment_bytes: 64 << 10,
    }
}

/// `None` where the power went before it stood.
async fn start(disk: &SimDisk, config: &Config) -> Option<Running> {
    let cuts = disk.power_cuts();
    let queue = match disk.open(&log()).await {
        Ok(queue) => queue,
        Err(error) => {
            assert!(disk.power_cuts() > cuts, "refused without a power cut: {error}");
            return None;
        }
    };
    Some(Box::pin(App::start_on(config.clone(), queue)).await.unwrap())
}

/// Waits until everything in the log is in the warehouse.
async fn settle(running: &Running) {
    let started = Instant::now();
    loop {
        let request = hyper::Request::get("/operator/v1/status").body(bytes::Bytes::new());
        let status = crate::support::app::call(running.operator_addr, request.unwrap()).await;
        if status.json()["fast_lane"]["lag_records"] == 0 {
            return;
        }
        assert!(started.elapsed() < PATIENCE, "the lane does not catch up");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn acknowledged_events_survive_power_cuts_exactly_once() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (config, folder) = TestApp::embedded().set("server_key", SERVER_KEY).config();
    let seed = u64::from(std::process::id());
    let disk = SimDisk::new(seed);
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    let mut random = seed | 1;
    let (mut lives, mut cut_under_load) = (0, 0);
    for round in 0..rounds(12) {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        disk.power_cut_after((random >> 33) % 250);
        let cuts = disk.power_cuts();
        let Some(running) = runtime.block_on(start(&disk, &config)) else {
            continue;
        };
        lives += 1;
        let writers = Writers::start(running.public_addr.unwrap(), 4, round, &ledger);
        let began = Instant::now();
        while disk.power_cuts() == cuts && began.elapsed() < LIFE {
            std::thread::park_timeout(Duration::from_millis(1));
        }
        if disk.power_cuts() == cuts {
            disk.power_cut();
        } else {
            cut_under_load += 1;
        }
        writers.join();
        drop(running);
    }
    let running = runtime.block_on(async {
        // The last cut that was asked for may still be to come.
        match start(&disk, &config).await {
            Some(running) => running,
            None => start(&disk, &config).await.expect("a disk with power"),
        }
    });
    runtime.block_on(async {
        settle(&running).await;
        Box::pin(running.stop()).await;
    });
    let ledger = ledger.lock().unwrap();
    assert!(
        cut_under_load > 0 && ledger.acknowledged.len() > 10,
        "seed {seed}: {lives} lives, {cut_under_load} cut under load, {} events: too little to show anything",
        ledger.acknowledged.len()
    );
    assert!(!ledger.refused.contains_key(&0), "an answer was cut short");
    compare(&folder.path().join("data"), &ledger);
}
