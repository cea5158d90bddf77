//! What every log promises. A backend is given as a function that opens a new, empty log, and one that opens
//! the log it opened last again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cartwright::domain::consent::{Choice, ConsentStatement};
use cartwright::domain::event::{Event, Source};
use cartwright::domain::ids::{Environment, Shop, SubjectId, Timestamp};
use cartwright::queue::sim::SimDisk;
use cartwright::queue::{
    self, AppendError, EventQueue, LogId, OpenError, Position, QueueConfig, ReadError, ReadLimits,
};

pub(super) type Log = Arc<dyn EventQueue>;

/// Runs every promise of [`EventQueue`] against partition 0 of new logs. `reopen` is called after `close` only.
pub(crate) async fn suite(open_new: impl AsyncFn() -> Log, reopen: impl AsyncFn() -> Log) {
    records_come_back_in_order_and_whole(&open_new().await).await;
    a_read_keeps_its_limits(&open_new().await).await;
    a_waiting_reader_wakes_with_the_first_record(&open_new().await).await;
    readers_are_independent_and_agree(&open_new().await).await;
    producers_at_once_get_dense_offsets(&open_new().await).await;
    positions_that_do_not_fit_are_refused(&open_new().await).await;
    dropping_an_append_leaves_the_log_whole(&open_new().await).await;
    a_closed_log_refuses_everything(&open_new().await).await;

    let log = open_new().await;
    let expected = events(0..50);
    log.append(0, &expected).await.unwrap();
    let log_id = log.extent(0).await.unwrap().log_id;
    log.close().await;
    let log = reopen().await;
    assert_eq!(log.extent(0).await.unwrap().log_id, log_id);
    assert_eq!(read_all(&log).await, expected);
    assert_eq!(log.append(0, &events(50..51)).await.unwrap(), 50);
    log.close().await;
}

/// Promises about size, for logs opened with a limit of `limit_bytes` and no retention.
pub(crate) async fn limit_suite(log: &Log, limit_bytes: u64) {
    let mut next = 0;
    let refusal = loop {
        match log.append(0, &events(next..next + 10)).await {
            Ok(first) => next = first + 10,
            Err(refusal) => break refusal,
        }
    };
    assert!(matches!(refusal, AppendError::Full { .. }), "{refusal}");
    let extent = log.extent(0).await.unwrap();
    assert_eq!(extent.next, next, "a refused append leaves nothing behind");
    assert!(extent.size_bytes <= limit_bytes);

    let half = next / 2;
    log.trim(at(extent.log_id, half)).await.unwrap();
    let trimmed = log.extent(0).await.unwrap();
    assert!(trimmed.first <= half && trimmed.size_bytes < extent.size_bytes);
    assert_eq!(read_all(log).await, events(trimmed.first..next));
    assert_eq!(log.append(0, &events(next..next + 10)).await.unwrap(), next);
    let below = log.read(at(extent.log_id, 0), limits(1)).await;
    assert!(matches!(below, Err(ReadError::OutOfRange { .. })), "{below:?}");
    log.trim(at(extent.log_id, 0))
        .await
        .expect("trimming what is gone is no error");
}

pub(super) fn event(id: u64) -> Event {
    Event {
        shop: Shop::new("acme", Environment::Live).unwrap(),
        source: Source::Server,
        event_id: format!("event-{id}").into(),
        name: if id.is_multiple_of(3) {
            "Order Completed".into()
        } else {
            "Product Viewed".into()
        },
        anonymous: Some(SubjectId::from_stored("a:k1.guest")),
        user: id.is_multiple_of(2).then(|| SubjectId::from_stored("u:k1.user")),
        claimed_user: None,
        session: Some("k1.session".into()),
        event_time: Timestamp(id as i64),
        received_at: Timestamp(1_700_000_000_000 + id as i64),
        consent: ConsentStatement {
            analytics: Some(Choice::Granted),
            personalization: None,
        },
        quarantine: id.is_multiple_of(7).then(|| "unknown_currency".into()),
        body: Bytes::from(format!(
            r#"{{"properties":{{"n":{id},"pad":"{}"}}}}"#,
            "x".repeat(id as usize % 300)
        )),
    }
}

pub(super) fn events(ids: std::ops::Range<u64>) -> Vec<Event> {
    ids.map(event).collect()
}

pub(super) fn limits(max_records: usize) -> ReadLimits {
    ReadLimits {
        max_records,
        max_bytes: 1 << 20,
        wait: Duration::ZERO,
    }
}

pub(super) fn at(log_id: LogId, offset: u64) -> Position {
    Position {
        log_id,
        partition: 0,
        offset,
    }
}

pub(super) async fn read_all(log: &Log) -> Vec<Event> {
    let extent = log.extent(0).await.unwrap();
    let mut all = Vec::new();
    let mut offset = extent.first;
    while offset < extent.next {
        for entry in log.read(at(extent.log_id, offset), limits(37)).await.unwrap() {
            assert_eq!(entry.offset, offset);
            offset += 1;
            all.push(entry.event.unwrap());
        }
    }
    all
}

async fn records_come_back_in_order_and_whole(log: &Log) {
    let extent = log.extent(0).await.unwrap();
    assert_eq!((extent.first, extent.next), (0, 0));
    assert!(
        log.read(at(extent.log_id, 0), limits(10))
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(log.append(0, &events(0..1)).await.unwrap(), 0);
    assert_eq!(log.append(0, &events(1..5000)).await.unwrap(), 1);
    assert_eq!(log.append(0, &[]).await.unwrap(), 5000);
    assert_eq!(log.append(0, &events(5000..5003)).await.unwrap(), 5000);
    assert_eq!(log.extent(0).await.unwrap().next, 5003);
    assert_eq!(read_all(log).await, events(0..5003));
    log.close().await;
}

async fn a_read_keeps_its_limits(log: &Log) {
    for batch in 0..10 {
        log.append(0, &events(batch * 10..batch * 10 + 10)).await.unwrap();
    }
    let log_id = log.extent(0).await.unwrap().log_id;
    for from in [0, 5, 9, 10, 99] {
        let one = ReadLimits {
            max_records: 100,
            max_bytes: 1,
            wait: Duration::ZERO,
        };
        let entries = log.read(at(log_id, from), one).await.unwrap();
        assert_eq!(entries.len(), 1, "one record even if it is larger than the limit");
        assert_eq!(entries[0].offset, from);
        assert_eq!(log.read(at(log_id, from), limits(1)).await.unwrap().len(), 1);
        let seven = log.read(at(log_id, from), limits(7)).await.unwrap();
        assert_eq!(seven.len() as u64, 7.min(100 - from));
    }
    log.close().await;
}

async fn a_waiting_reader_wakes_with_the_first_record(log: &Log) {
    let log_id = log.extent(0).await.unwrap().log_id;
    let started = Instant::now();
    let patient = ReadLimits {
        wait: Duration::from_secs(30),
        ..limits(10)
    };
    let appending = Arc::clone(log);
    let append = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(30)).await;
        appending.append(0, &events(0..1)).await
    });
    let entries = log.read(at(log_id, 0), patient).await.unwrap();
    assert_eq!(entries.len(), 1);
    assert!(started.elapsed() < Duration::from_secs(10));
    append.await.unwrap().unwrap();

    let started = Instant::now();
    let hasty = ReadLimits {
        wait: Duration::from_millis(40),
        ..limits(10)
    };
    assert!(log.read(at(log_id, 1), hasty).await.unwrap().is_empty());
    assert!(started.elapsed() >= Duration::from_millis(40));
    log.close().await;
}

async fn readers_are_independent_and_agree(log: &Log) {
    let log_id = log.extent(0).await.unwrap().log_id;
    let readers: Vec<_> = [1, 13, 100]
        .into_iter()
        .map(|max_records| {
            let log = Arc::clone(log);
            tokio::spawn(async move {
                let patient = ReadLimits {
                    wait: Duration::from_secs(10),
                    ..limits(max_records)
                };
                let mut all = Vec::new();
                while all.len() < 400 {
                    let entries = log.read(at(log_id, all.len() as u64), patient).await.unwrap();
                    all.extend(entries.into_iter().map(|entry| entry.event.unwrap()));
                }
                all
            })
        })
        .collect();
    for start in (0..400).step_by(4) {
        log.append(0, &events(start..start + 4)).await.unwrap();
    }
    for reader in readers {
        assert_eq!(reader.await.unwrap(), events(0..400));
    }
    log.close().await;
}

async fn producers_at_once_get_dense_offsets(log: &Log) {
    let producers: Vec<_> = (0..40u64)
        .map(|producer| {
            let log = Arc::clone(log);
            tokio::spawn(async move {
                let mut placed = Vec::new();
                for round in 0..5 {
                    let start = producer * 1000 + round * 10;
                    let batch = events(start..start + 1 + producer % 3);
                    placed.push((log.append(0, &batch).await.unwrap(), batch));
                }
                assert!(placed.is_sorted_by_key(|(first, _)| *first));
                placed
            })
        })
        .collect();
    let mut placed = Vec::new();
    for producer in producers {
        placed.extend(producer.await.unwrap());
    }
    placed.sort_by_key(|(first, _)| *first);
    let expected: Vec<Event> = placed.into_iter().flat_map(|(_, batch)| batch).collect();
    assert_eq!(read_all(log).await, expected);
    log.close().await;
}

async fn positions_that_do_not_fit_are_refused(log: &Log) {
    log.append(0, &events(0..3)).await.unwrap();
    let log_id = log.extent(0).await.unwrap().log_id;
    let stranger = LogId("018f0000-0000-7000-8000-000000000001".parse().unwrap());
    for position in [at(stranger, 0), at(log_id, 4), at(log_id, u64::MAX)] {
        let outcome = log.read(position, limits(1)).await;
        let Err(ReadError::OutOfRange { remedy, extent, .. }) = outcome else {
            panic!("{outcome:?}")
        };
        assert!(!remedy.is_empty() && extent.next == 3);
        assert!(matches!(
            log.trim(position).await,
            Err(ReadError::OutOfRange { .. })
        ));
    }
    assert!(log.read(at(log_id, 3), limits(1)).await.unwrap().is_empty());
    log.close().await;
}

async fn dropping_an_append_leaves_the_log_whole(log: &Log) {
    for id in 0..30 {
        let batch = [event(id * 2), event(id * 2 + 1)];
        let append = log.append(0, &batch);
        let _ = tokio::time::timeout(Duration::from_micros(id * 20), append).await;
    }
    let first = log.append(0, &events(100..101)).await.unwrap();
    let all = read_all(log).await;
    assert_eq!(all.len() as u64, first + 1);
    let (last, pairs) = all.split_last().unwrap();
    assert_eq!(*last, event(100));
    let mut before = None;
    for pair in pairs.chunks(2) {
        let id = pair[0].event_time.0 as u64;
        assert!(before < Some(id), "each append at most once, in the order sent");
        assert_eq!(pair, [event(id), event(id + 1)]);
        before = Some(id);
    }
    log.close().await;
}

async fn a_closed_log_refuses_everything(log: &Log) {
    let log_id = log.extent(0).await.unwrap().log_id;
    let waiting = Arc::clone(log);
    let reader = tokio::spawn(async move {
        waiting
            .read(
                at(log_id, 0),
                ReadLimits {
                    wait: Duration::from_secs(30),
                    ..limits(1)
                },
            )
            .await
    });
    tokio::task::yield_now().await;
    log.close().await;
    log.close().await;
    assert!(
        matches!(reader.await.unwrap(), Err(ReadError::Closed)),
        "a waiting reader is let go"
    );
    assert!(matches!(
        log.append(0, &events(0..1)).await,
        Err(AppendError::Closed { .. })
    ));
    assert!(matches!(
        log.read(at(log_id, 0), limits(1)).await,
        Err(ReadError::Closed)
    ));
    assert!(matches!(log.trim(at(log_id, 0)).await, Err(ReadError::Closed)));
    assert!(matches!(log.extent(0).await, Err(ReadError::Closed)));
}

pub(super) fn config(url: String) -> QueueConfig {
    QueueConfig {
        partitions: 1,
        url,
        limit_bytes: 64 << 20,
        retain: Duration::ZERO,
        retain_bytes: 0,
        segment_bytes: 2 << 20,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_on_disk_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let opened = AtomicU64::new(0);
    let open = async |number: u64| {
        let path = folder.path().join(number.to_string());
        queue::open(&config(format!("disk:{}", path.display())))
            .await
            .unwrap()
    };
    let open_new = async || open(opened.fetch_add(1, Ordering::Relaxed) + 1).await;
    suite(open_new, async || open(opened.load(Ordering::Relaxed)).await).await;

    let path = folder.path().join("limited");
    let limited = QueueConfig {
        limit_bytes: 512 << 10,
        ..config(format!("disk:{}", path.display()))
    };
    let log = queue::open(&limited).await.unwrap();
    limit_suite(&log, limited.limit_bytes).await;
    log.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_on_a_simulated_disk_keeps_the_contract() {
    let disk = std::sync::Mutex::new(SimDisk::new(0));
    let current = || disk.lock().unwrap().clone();
    let open = async || current().open(&config(String::new())).await.unwrap();
    let open_new = async || {
        *disk.lock().unwrap() = SimDisk::new(1);
        open().await
    };
    suite(open_new, open).await;
}

#[tokio::test]
async fn retention_holds_back_what_is_young_up_to_its_size() {
    let fill = async |retain: Duration, retain_bytes: u64| {
        let disk = SimDisk::new(1);
        let kept = QueueConfig {
            retain,
            retain_bytes,
            segment_bytes: 16 << 10,
            ..config(String::new())
        };
        let log = disk.open(&kept).await.unwrap();
        for batch in 0..50 {
            log.append(0, &events(batch * 10..batch * 10 + 10)).await.unwrap();
        }
        let log_id = log.extent(0).await.unwrap().log_id;
        log.trim(at(log_id, 500)).await.unwrap();
        let extent = log.extent(0).await.unwrap();
        log.close().await;
        extent
    };
    let hour = Duration::from_secs(3600);
    assert_eq!(fill(hour, u64::MAX).await.first, 0);
    assert!(fill(Duration::ZERO, u64::MAX).await.first > 400);
    let bounded = fill(hour, 60 << 10).await;
    assert!(bounded.first > 0 && bounded.size_bytes <= 60 << 10 && bounded.size_bytes > 40 << 10);
}

#[tokio::test]
async fn a_record_beyond_the_limit_is_refused_for_good() {
    let disk = SimDisk::new(1);
    let small = QueueConfig {
        segment_bytes: 16 << 10,
        ..config(String::new())
    };
    let log = disk.open(&small).await.unwrap();
    let mut large = event(1);
    large.body = Bytes::from(vec![b' '; 16 << 10]);
    let outcome = log.append(0, &[event(0), large]).await;
    assert!(
        matches!(outcome, Err(AppendError::TooLarge { .. })),
        "{outcome:?}"
    );
    assert_eq!(log.extent(0).await.unwrap().next, 0);
    assert!(matches!(
        log.append(3, &events(0..1)).await,
        Err(AppendError::Closed { .. })
    ));
    log.close().await;
}

#[tokio::test]
async fn an_unknown_scheme_is_refused() {
    for url in ["", "disk:", "tape:/dev/st0"] {
        let outcome = queue::open(&config(url.to_owned())).await;
        assert!(
            matches!(outcome, Err(OpenError::Url { .. })),
            "{url}: {outcome:?}"
        );
    }
}

/// The lock is tested against another process: this test binary, started again with the folder in its environment.
#[tokio::test]
#[allow(clippy::disallowed_methods)]
async fn a_second_process_is_kept_out() {
    const FOLDER: &str = "CARTWRIGHT_TEST_LOCKED_FOLDER";
    if let Ok(folder) = std::env::var(FOLDER) {
        let outcome = queue::open(&config(format!("disk:{folder}"))).await;
        assert!(matches!(outcome, Err(OpenError::Locked { .. })), "{outcome:?}");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let log = queue::open(&config(format!("disk:{}", folder.path().display())))
        .await
        .unwrap();
    let status = tokio::task::spawn_blocking({
        let folder = folder.path().to_owned();
        move || {
            std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "contract::queue::a_second_process_is_kept_out"])
                .env(FOLDER, folder)
                .output()
        }
    });
    let output = status.await.unwrap().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
    log.close().await;
}
