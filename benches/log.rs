//! Durable appends against what the disk can do: `cargo bench --bench log [-- --seconds 2 --rounds 3 --folder PATH]`.
//!
//! Each cell alternates, in one run on one disk, the log and a bare loop that writes bytes of the same size into a zero-filled file
//! and syncs them: directly for one producer, by a bare group commit for more. The bare ones neither encode, checksum, index nor
//! prepare segments (they go round in one file), so their figure is a ceiling. Prints a table, and a line of JSON per cell.

#![allow(
    clippy::print_stdout,
    clippy::disallowed_macros,
    clippy::unwrap_used,
    clippy::expect_used
)]

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cartwright::domain::consent::ConsentStatement;
use cartwright::domain::event::{Event, Source};
use cartwright::domain::ids::{Environment, Shop, SubjectId, Timestamp};
use cartwright::queue::{self, EventQueue, Position, QueueConfig};
use tokio::sync::oneshot;

/// The encoded size of one event.
const EVENT_BYTES: usize = 500;
const BARE_FILE_BYTES: u64 = 64 << 20;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct Options {
    seconds: f64,
    rounds: usize,
    folder: PathBuf,
}

/// Events per second, and latencies of whole appends in microseconds.
#[derive(Clone, Copy)]
struct Figures {
    events_per_s: f64,
    p50_us: f64,
    p99_us: f64,
}

fn main() {
    let options = options();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    println!(
        "{:>9} {:>6} | {:>12} {:>9} {:>9} | {:>12} {:>9} {:>9} | {:>6} {:>6}",
        "producers", "batch", "log ev/s", "p50 us", "p99 us", "bare ev/s", "p50 us", "p99 us", "ev/s", "p50"
    );
    let mut lines = Vec::new();
    for batch in [1, 100] {
        for producers in [1, 64, 1024] {
            let (mut ours, mut bare) = (Vec::new(), Vec::new());
            for _ in 0..options.rounds {
                ours.push(runtime.block_on(log(&options, producers, batch)));
                bare.push(if producers == 1 {
                    // On a thread of its own, as the log's writer is.
                    std::thread::scope(|scope| scope.spawn(|| bare_loop(&options, batch)).join().unwrap())
                } else {
                    runtime.block_on(bare_group_commit(&options, producers, batch))
                });
            }
            let (ours, bare) = (median(ours), median(bare));
            let (rate, p50) = (ours.events_per_s / bare.events_per_s, ours.p50_us / bare.p50_us);
            println!(
                "{producers:>9} {batch:>6} | {:>12.0} {:>9.0} {:>9.0} | {:>12.0} {:>9.0} {:>9.0} | {rate:>6.2} {p50:>6.2}",
                ours.events_per_s, ours.p50_us, ours.p99_us, bare.events_per_s, bare.p50_us, bare.p99_us
            );
            lines.push(serde_json::json!({
                "bench": "log_append", "producers": producers, "batch": batch, "event_bytes": EVENT_BYTES,
                "events_per_s": ours.events_per_s, "p50_us": ours.p50_us, "p99_us": ours.p99_us,
                "bare_events_per_s": bare.events_per_s, "bare_p50_us": bare.p50_us, "bare_p99_us": bare.p99_us,
                "events_per_s_ratio": rate, "p50_ratio": p50,
            }));
        }
    }
    for line in lines {
        println!("{line}");
    }
}

fn options() -> Options {
    let mut options = Options {
        seconds: 2.0,
        rounds: 3,
        folder: std::env::temp_dir(),
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || {
            arguments
                .next()
                .unwrap_or_else(|| panic!("{argument} needs a value"))
        };
        match argument.as_str() {
            "--seconds" => options.seconds = value().parse().expect("--seconds is a number"),
            "--rounds" => options.rounds = value().parse().expect("--rounds is a number"),
            "--folder" => options.folder = value().into(),
            "--bench" => {}
            other => panic!("unknown argument {other}"),
        }
    }
    options
}

fn median(mut figures: Vec<Figures>) -> Figures {
    figures.sort_by(|a, b| a.events_per_s.total_cmp(&b.events_per_s));
    figures[figures.len() / 2]
}

fn event(id: u64) -> Event {
    // The header takes 185 bytes with these texts.
    let body = format!(
        r#"{{"properties":{{"product_id":"85123A","pad":"{}"}}}}"#,
        "x".repeat(EVENT_BYTES - 185 - 50)
    );
    Event {
        shop: Shop::new("acme", Environment::Live).unwrap(),
        source: Source::Public,
        event_id: format!("0198f3a2-7c1e-7000-8000-{id:012}").into(),
        name: "Product Viewed".into(),
        anonymous: Some(SubjectId::from_stored(
            "a:k1.abcdefghijklmnopqrstuvwxyz0123456789abcdefg",
        )),
        user: None,
        claimed_user: None,
        session: Some("k1.abcdefghijklmnopqrstuvwxyz0123456789abcdefg".into()),
        event_time: Timestamp(1_700_000_000_000),
        received_at: Timestamp(1_700_000_000_001),
        consent: ConsentStatement::default(),
        quarantine: None,
        body: Bytes::from(body),
    }
}

/// Runs `producers` tasks that append one after the other until the time is up.
async fn produce<A, F>(options: &Options, producers: usize, batch: usize, append: A) -> Figures
where
    A: Fn() -> F + Clone + Send + Sync + 'static,
    F: Future<Output = ()> + Send,
{
    let started = Instant::now();
    let until = started + Duration::from_secs_f64(options.seconds);
    let tasks: Vec<_> = (0..producers)
        .map(|_| {
            let append = append.clone();
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                while Instant::now() < until {
                    let begun = Instant::now();
                    append().await;
                    latencies.push(begun.elapsed());
                }
                latencies
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await.unwrap());
    }
    figures(latencies, batch, started.elapsed())
}

fn figures(mut latencies: Vec<Duration>, batch: usize, elapsed: Duration) -> Figures {
    latencies.sort_unstable();
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
    Figures {
        events_per_s: (latencies.len() * batch) as f64 / elapsed.as_secs_f64(),
        p50_us: at(0.5),
        p99_us: at(0.99),
    }
}

async fn log(options: &Options, producers: usize, batch: usize) -> Figures {
    let folder = tempfile::tempdir_in(&options.folder).unwrap();
    let config = QueueConfig {
        partitions: 1,
        url: format!("disk:{}", folder.path().display()),
        limit_bytes: 8 << 30,
        retain: Duration::ZERO,
        retain_bytes: 0,
        segment_bytes: 64 << 20,
    };
    let log = queue::open(&config).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let trimmer = tokio::spawn(trim(Arc::clone(&log), Arc::clone(&stop)));
    let events: Arc<[Event]> = (0..batch as u64).map(event).collect();
    let appending = Arc::clone(&log);
    let result = produce(options, producers, batch, move || {
        let (log, events) = (Arc::clone(&appending), Arc::clone(&events));
        async move {
            log.append(0, &events).await.unwrap();
        }
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    trimmer.await.unwrap();
    let extent = log.extent(0).await.unwrap();
    assert!(extent.next > 0);
    log.close().await;
    result
}

/// As a view that keeps up would.
async fn trim(log: Arc<dyn EventQueue>, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let extent = log.extent(0).await.unwrap();
        log.trim(Position {
            log_id: extent.log_id,
            partition: 0,
            offset: extent.next,
        })
        .await
        .unwrap();
    }
}

fn zero_filled(folder: &Path) -> File {
    let file = tempfile::tempfile_in(folder).unwrap();
    let zeros = vec![0; 1 << 20];
    for at in (0..BARE_FILE_BYTES).step_by(zeros.len()) {
        file.write_all_at(&zeros, at).unwrap();
    }
    file.sync_all().unwrap();
    file
}

fn bare_loop(options: &Options, batch: usize) -> Figures {
    let file = zero_filled(&options.folder);
    let bytes = vec![7; EVENT_BYTES * batch];
    let started = Instant::now();
    let until = started + Duration::from_secs_f64(options.seconds);
    let mut latencies = Vec::new();
    let mut at = 0;
    while Instant::now() < until {
        let begun = Instant::now();
        at = write_round(&file, &bytes, at);
        latencies.push(begun.elapsed());
    }
    figures(latencies, batch, started.elapsed())
}

fn write_round(file: &File, bytes: &[u8], at: u64) -> u64 {
    let at = if at + bytes.len() as u64 > BARE_FILE_BYTES {
        0
    } else {
        at
    };
    file.write_all_at(bytes, at).unwrap();
    file.sync_data().unwrap();
    at + bytes.len() as u64
}

#[derive(Default)]
struct Waiting {
    appends: Vec<(Vec<u8>, oneshot::Sender<()>)>,
    closed: bool,
}

async fn bare_group_commit(options: &Options, producers: usize, batch: usize) -> Figures {
    let file = zero_filled(&options.folder);
    let inbox = Arc::new((Mutex::new(Waiting::default()), Condvar::new()));
    let writer = std::thread::spawn({
        let inbox = Arc::clone(&inbox);
        move || {
            let mut at = 0;
            let mut buffer = Vec::new();
            loop {
                let mut waiting = inbox.0.lock().unwrap();
                while waiting.appends.is_empty() && !waiting.closed {
                    waiting = inbox.1.wait(waiting).unwrap();
                }
                let appends = std::mem::take(&mut waiting.appends);
                drop(waiting);
                if appends.is_empty() {
                    return;
                }
                buffer.clear();
                for (bytes, _) in &appends {
                    buffer.extend_from_slice(bytes);
                }
                at = write_round(&file, &buffer, at);
                for (_, done) in appends {
                    let _ = done.send(());
                }
            }
        }
    });
    let appending = Arc::clone(&inbox);
    let result = produce(options, producers, batch, move || {
        let inbox = Arc::clone(&appending);
        async move {
            let (done, outcome) = oneshot::channel();
            inbox
                .0
                .lock()
                .unwrap()
                .appends
                .push((vec![7; EVENT_BYTES * batch], done));
            inbox.1.notify_one();
            outcome.await.unwrap();
        }
    })
    .await;
    inbox.0.lock().unwrap().closed = true;
    inbox.1.notify_one();
    writer.join().unwrap();
    result
}
