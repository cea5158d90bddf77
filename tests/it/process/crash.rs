use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::load::{Ledger, Writers, compare, wait_until_applied};
use crate::support::process::Process;
use crate::support::rounds;

/// Three rounds here, sixty in `make test-long`.
#[test]
fn acknowledged_events_survive_kill_nine_exactly_once() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    let mut random = u64::from(std::process::id()) | 1;
    for round in 0..rounds(3) {
        let process = Process::start(folder.path());
        let writers = Writers::start(process.addr, 8, round, &ledger);
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        std::thread::park_timeout(Duration::from_millis(20 + (random >> 33) % 600));
        process.kill();
        writers.join();
    }
    let process = Process::start(folder.path());
    wait_until_applied(&process);
    assert!(process.terminate().success());
    let ledger = ledger.lock().unwrap();
    assert!(
        ledger.acknowledged.len() > 10,
        "too little was acknowledged to show anything"
    );
    compare(folder.path(), &ledger);
}
