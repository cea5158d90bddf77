use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::load::{Ledger, Writers, compare, wait_until_applied};
use crate::support::process::Process;

#[test]
fn sigterm_under_load_loses_no_acknowledged_event_and_cuts_no_answer_short() {
    stop_under_load(Process::start);
}

/// Such a node has a runtime of its own kind: one thread for its requests and its lane.
#[test]
fn a_node_of_one_core_takes_load_and_stops_like_any_other() {
    stop_under_load(Process::start_on_one_core);
}

fn stop_under_load(start: fn(&Path) -> Process) {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    let process = start(folder.path());
    let writers = Writers::start(process.addr, 8, 0, &ledger);
    std::thread::park_timeout(Duration::from_millis(500));
    assert!(
        process.terminate().success(),
        "the exit status says that the stop was clean"
    );
    writers.join();

    let process = start(folder.path());
    wait_until_applied(&process);
    assert!(process.terminate().success());
    let ledger = ledger.lock().unwrap();
    assert!(
        ledger.acknowledged.len() > 10,
        "too little was acknowledged to show anything"
    );
    assert!(!ledger.refused.contains_key(&0), "an answer was cut short");
    compare(folder.path(), &ledger);
}

#[test]
fn a_signal_sent_twice_at_once_is_one_and_a_later_one_ends_the_process_at_once() {
    use std::io::Write as _;
    for (pause, code) in [(Duration::ZERO, 0), (Duration::from_millis(600), 130)] {
        let folder = tempfile::tempdir().unwrap();
        let process = Process::start(folder.path());
        // A request whose body takes its time holds up the stop.
        let mut slow = std::net::TcpStream::connect(process.addr).unwrap();
        let body = r#"{"event":"Product Viewed","anonymous_id":"a1","properties":{"product_id":"p1"}}"#;
        let (early, late) = body.split_at(20);
        let head = format!(
            "POST /events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{early}",
            crate::support::process::SERVER_KEY,
            body.len()
        );
        slow.write_all(head.as_bytes()).unwrap();
        std::thread::park_timeout(Duration::from_millis(100));
        process.signal();
        std::thread::park_timeout(pause);
        process.signal();
        if code == 0 {
            std::thread::park_timeout(Duration::from_millis(500));
            slow.write_all(late.as_bytes()).unwrap();
            let mut answer = String::new();
            std::io::Read::read_to_string(&mut slow, &mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
        }
        assert_eq!(process.ended().code(), Some(code));
    }
}
