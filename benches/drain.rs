//! Goal G8: the fast lane's work, from events to profiles and star schema, into SQLite or PostgreSQL.
//!
//! 100,000 shoppers by Zipf, events with random ids, 2 % of them orders of five lines, batches as large as those of a lane that
//! is behind, into a warehouse that holds rows already. Timed: transform and apply, commit included. One core:
//!
//! ```text
//! cargo bench --bench drain --no-run
//! taskset -c 0 cargo bench --bench drain -- --full
//! ```
//!
//! `--preload N` (100,000; `--full`: 1,000,000) rows before the clock starts, `--events N` (200,000) timed,
//! `--batch N` (8,192), `--shoppers N` (100,000), `--lanes N` (1): as many partitions at once, each with its share of the
//! shoppers and all with the same products, `--folder PATH` (a temporary one), `--postgres URL` (an
//! empty database) instead of SQLite; the server's own CPU is not in the figures, so pin it to the other core.

#![allow(
    clippy::disallowed_macros,
    clippy::unwrap_used,
    clippy::expect_used,
    missing_docs
)]

use std::cell::RefCell;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use cartwright::domain::consent::ConsentStatement;
use cartwright::domain::event::{Event, Source};
use cartwright::domain::ids::{Environment, PseudonymKey, Shop, SubjectId, Timestamp};
use cartwright::domain::transform::{Effect, transform};
use cartwright::drain::BatchLimits;
use cartwright::warehouse::{self, Batch, StoredPosition, Warehouse, WarehouseConfig};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct Settings {
    preload: u64,
    events: u64,
    batch: u64,
    shoppers: usize,
    lanes: u16,
    folder: Option<std::path::PathBuf>,
    postgres: Option<String>,
}

impl Settings {
    fn from_arguments() -> Settings {
        let mut settings = Settings {
            preload: 100_000,
            events: 200_000,
            batch: BatchLimits::default().max_records as u64,
            shoppers: 100_000,
            lanes: 1,
            folder: None,
            postgres: None,
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(flag) = arguments.next() {
            let mut number = || {
                arguments
                    .next()
                    .and_then(|text| text.parse().ok())
                    .expect("a number")
            };
            match flag.as_str() {
                "--full" => settings.preload = 1_000_000,
                "--preload" => settings.preload = number(),
                "--events" => settings.events = number(),
                "--batch" => settings.batch = number(),
                "--shoppers" => settings.shoppers = number() as usize,
                "--lanes" => settings.lanes = number() as u16,
                "--postgres" => settings.postgres = arguments.next(),
                "--folder" => settings.folder = arguments.next().map(Into::into),
                "--bench" => {}
                other => panic!("unknown flag {other}"),
            }
        }
        settings
    }
}

/// A small generator of the same numbers in each run (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn uuid(&mut self) -> String {
        uuid::Builder::from_random_bytes(
            ((u128::from(self.next()) << 64) | u128::from(self.next())).to_be_bytes(),
        )
        .into_uuid()
        .to_string()
    }
}

struct World {
    random: Random,
    shop: Shop,
    shoppers: Vec<SubjectId>,
    /// Cumulated weights 1/rank.
    zipf: Vec<f64>,
    /// Of the next event, in milliseconds.
    clock: i64,
}

impl World {
    /// The world of one of `lanes`, which has every so manieth shopper.
    fn new(shoppers: usize, lane: u16, lanes: u16) -> World {
        let shop = Shop::new("bench", Environment::Live).unwrap();
        let key = PseudonymKey::new("k1", b"0123456789abcdef0123456789abcdef");
        let mut sum = 0.0;
        let mine = || (usize::from(lane)..shoppers).step_by(usize::from(lanes));
        let zipf = mine()
            .map(|rank| {
                sum += 1.0 / (rank + 1) as f64;
                sum
            })
            .collect();
        let shoppers = mine().map(|n| key.anonymous(&shop, &n.to_string())).collect();
        World {
            random: Random(42 + u64::from(lane)),
            shop,
            shoppers,
            zipf,
            clock: 1_700_000_000_000,
        }
    }

    fn shopper(&mut self) -> SubjectId {
        let total = self.zipf.last().copied().unwrap();
        let point = self.random.next() as f64 / u64::MAX as f64 * total;
        let at = self.zipf.partition_point(|sum| *sum < point);
        self.shoppers[at.min(self.shoppers.len() - 1)].clone()
    }

    fn product(&mut self) -> String {
        let n = self.random.below(3_000);
        format!(
            r#"{{"product_id":"sku-{n}","name":"Product number {n}","category":"category-{}","price":{}.95,"currency":"EUR","quantity":1}}"#,
            n % 40,
            1 + n % 90
        )
    }

    fn event(&mut self) -> Event {
        self.clock += 20;
        let name = match self.random.below(100) {
            0..2 => "Order Completed",
            2..65 => "Product Viewed",
            65..80 => "Product Added",
            80..85 => "Checkout Started",
            85..95 => "Checkout Step Viewed",
            _ => "Page Viewed",
        };
        let properties = match name {
            "Order Completed" => {
                let mut lines = self.product();
                for _ in 0..4 {
                    write!(lines, ",{}", self.product()).unwrap();
                }
                let order = self.random.uuid();
                format!(
                    r#"{{"order_id":"{order}","currency":"EUR","payment_method":"card","products":[{lines}]}}"#
                )
            }
            "Product Viewed" | "Product Added" => self.product(),
            "Checkout Started" => format!(r#"{{"currency":"EUR","products":[{}]}}"#, self.product()),
            "Checkout Step Viewed" => r#"{"step":2,"shipping_method":"parcel"}"#.to_owned(),
            _ => r#"{"title":"Home"}"#.to_owned(),
        };
        let context = r#"{"locale":"de-DE","page":{"path":"/p/12345"},"device":{"type":"mobile"},"userAgent":"Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X)"}"#;
        let session = format!("k1.{:043}", self.random.below(1 << 40));
        Event {
            shop: self.shop.clone(),
            source: Source::Public,
            event_id: self.random.uuid().into(),
            name: name.into(),
            anonymous: Some(self.shopper()),
            user: None,
            claimed_user: None,
            session: Some(session.into()),
            event_time: Timestamp(self.clock),
            received_at: Timestamp(self.clock + 100),
            consent: ConsentStatement::default(),
            quarantine: None,
            body: format!(r#"{{"properties":{properties},"context":{context}}}"#).into(),
        }
    }
}

/// What the process spent on its core so far, in all threads; holds where the clock doesn't, beside other work.
fn cpu() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a valid place for the call to write to.
    let outcome = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    assert_eq!(outcome, 0);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// What some lanes have applied together.
#[derive(Default)]
struct Spent {
    events: u64,
    documents: usize,
    transform: Duration,
    slowest: Duration,
}

/// One partition of the log.
struct Lane {
    world: World,
    partition: u16,
    offset: u64,
}

impl Lane {
    fn batch(&mut self, count: u64) -> Vec<Event> {
        (0..count).map(|_| self.world.event()).collect()
    }

    async fn apply(&mut self, warehouse: &dyn Warehouse, raw: &[Event], spent: &RefCell<Spent>) {
        let started = Instant::now();
        let effects: Vec<(u64, Effect)> = (self.offset..).zip(raw.iter().map(transform)).collect();
        let transformed = Instant::now();
        let count = raw.len() as u64;
        let position = |offset| StoredPosition {
            log_id: uuid::Uuid::from_u128(1),
            partition: self.partition,
            offset,
        };
        let batch = Batch {
            expected: (self.offset > 0).then(|| position(self.offset)),
            next: position(self.offset + count),
            effects: &effects,
            unreadable: &[],
            now: Timestamp(self.world.clock),
            ruleset: None,
            dedupe_floor: Some(Timestamp(0)),
        };
        let applied = warehouse.apply(&batch).await.unwrap();
        assert_eq!(applied.new_events, count);
        self.offset += count;
        let mut spent = spent.borrow_mut();
        spent.events += count;
        spent.documents += applied.documents.len();
        spent.transform += transformed - started;
        spent.slowest = spent.slowest.max(transformed.elapsed());
    }
}

/// Lets the lanes apply their shares of `events` side by side, and reports. The events are made before the clock starts.
async fn drain(name: &str, warehouse: &dyn Warehouse, lanes: &mut [Lane], events: u64, batch: u64) {
    let (mut elapsed, mut used, mut left) = (Duration::ZERO, Duration::ZERO, events);
    let spent = RefCell::new(Spent::default());
    let lane_count = lanes.len() as u64;
    while left > 0 {
        // In stretches, so that not all events are in memory at once.
        let stretch = left.min(200_000);
        left -= stretch;
        let share = stretch.div_ceil(lane_count);
        let work: Vec<Vec<Vec<Event>>> = lanes
            .iter_mut()
            .map(|lane| {
                let batches = (0..share).step_by(batch as usize);
                batches.map(|done| lane.batch(batch.min(share - done))).collect()
            })
            .collect();
        let (started, used_before) = (Instant::now(), cpu());
        let running = lanes.iter_mut().zip(&work).map(|(lane, batches)| {
            let spent = &spent;
            async move {
                for raw in batches {
                    lane.apply(warehouse, raw, spent).await;
                }
            }
        });
        futures_util::future::join_all(running).await;
        elapsed += started.elapsed();
        used += cpu() - used_before;
    }
    report(name, &spent.into_inner(), elapsed, used);
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let settings = Settings::from_arguments();
    let temporary = tempfile::tempdir().unwrap();
    let folder = settings
        .folder
        .clone()
        .unwrap_or_else(|| temporary.path().to_owned());
    let url = settings
        .postgres
        .clone()
        .unwrap_or_else(|| format!("sqlite:{}", folder.join("drain.db").display()));
    let warehouse = warehouse::open(&WarehouseConfig { url, migrate: true })
        .await
        .unwrap();
    let mut lanes: Vec<Lane> = (0..settings.lanes)
        .map(|partition| Lane {
            world: World::new(settings.shoppers, partition, settings.lanes),
            partition,
            offset: 0,
        })
        .collect();

    println!(
        "preloading {} rows; for one core: taskset -c 0 cargo bench --bench drain -- --full",
        settings.preload
    );
    drain(
        "preload",
        &*warehouse,
        &mut lanes,
        settings.preload,
        settings.batch,
    )
    .await;
    drain("drain", &*warehouse, &mut lanes, settings.events, settings.batch).await;
    warehouse.close().await;
}

fn report(name: &str, spent: &Spent, elapsed: Duration, used: Duration) {
    let each = |part: Duration| part.as_secs_f64() * 1e6 / spent.events.max(1) as f64;
    println!(
        "{name:8} {:>8.0} events/s, {:>8.0} per second of CPU ({} events, {} documents; us per event: in all {:.1}, \
         transform {:.1}, CPU {:.1}; slowest batch {} ms)",
        spent.events as f64 / elapsed.as_secs_f64(),
        spent.events as f64 / used.as_secs_f64(),
        spent.events,
        spent.documents,
        each(elapsed),
        each(spent.transform),
        each(used),
        spent.slowest.as_millis(),
    );
}
