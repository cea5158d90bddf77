//! Writers that remember what was acknowledged, and the comparison with the warehouse.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use serde_json::{Value, json};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use sqlx::{AssertSqlSafe, Row as _};

use crate::support::process::{Client, Process};

/// What the writers sent, and what of it was acknowledged.
#[derive(Default)]
pub struct Ledger {
    pub acknowledged: BTreeSet<String>,
    /// Order ids of acknowledged orders, each worth 7.50.
    pub orders: BTreeSet<String>,
    /// Answers with a status other than 202.
    pub refused: BTreeMap<u16, u64>,
}

/// Threads that post until told to stop or until the server is gone.
pub struct Writers {
    threads: Vec<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
}

impl Writers {
    pub fn start(addr: SocketAddr, count: usize, round: usize, ledger: &Arc<Mutex<Ledger>>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..count)
            .map(|writer| {
                let (ledger, stop) = (Arc::clone(ledger), Arc::clone(&stop));
                std::thread::spawn(move || write(addr, &format!("{round}-{writer}"), &ledger, &stop))
            })
            .collect();
        Writers { threads, stop }
    }

    pub fn join(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
    }
}

fn write(addr: SocketAddr, name: &str, ledger: &Mutex<Ledger>, stop: &AtomicBool) {
    let Some(mut client) = Client::connect(addr) else {
        return;
    };
    let mut n = 0;
    while !stop.load(Ordering::Relaxed) {
        n += 1;
        let events: Vec<Value> = (0..=n % 4).map(|i| event(name, n, i)).collect();
        let body = json!({ "events": events }).to_string();
        let Some((status, answer)) = client.post("/events", &body) else {
            return;
        };
        if status != 202 {
            *ledger.lock().unwrap().refused.entry(status).or_default() += 1;
            if status == 0 {
                return;
            }
            continue;
        }
        let answer: Value = serde_json::from_str(&answer).unwrap();
        let mut ledger = ledger.lock().unwrap();
        for (sent, result) in events.iter().zip(answer["results"].as_array().unwrap()) {
            assert_eq!(result["event_id"], sent["event_id"]);
            assert!(
                ["accepted", "duplicate"].contains(&result["status"].as_str().unwrap()),
                "{result}"
            );
            ledger
                .acknowledged
                .insert(sent["event_id"].as_str().unwrap().to_owned());
            if let Some(order_id) = sent["properties"]["order_id"].as_str() {
                ledger.orders.insert(order_id.to_owned());
            }
        }
        // Every eighth request is sent again, as a client does that lost the answer.
        if n % 8 == 0 && client.post("/events", &body).is_none() {
            return;
        }
    }
}

/// Every third event is an order of 2 × 3.75.
fn event(writer: &str, n: usize, i: usize) -> Value {
    let id = format!("{writer}-{n}-{i}");
    let user = format!("shopper-{}", (n + i) % 17);
    if (n + i).is_multiple_of(3) {
        let products = json!([{ "product_id": "85123A", "quantity": 2, "price": 3.75 }]);
        let properties =
            json!({ "order_id": format!("order-{id}"), "currency": "GBP", "products": products });
        json!({ "event_id": id, "event": "Order Completed", "user_id": user, "properties": properties })
    } else {
        let properties = json!({ "product_id": "85123A", "category": "lights" });
        json!({ "event_id": id, "event": "Product Viewed", "user_id": user, "properties": properties })
    }
}

/// Waits until the lane has applied the whole log.
pub fn wait_until_applied(process: &Process) {
    let mut client = Client::connect(process.operator).unwrap();
    for _ in 0..6_000 {
        let (status, body) = client.get("/operator/v1/status").unwrap();
        assert_eq!(status, 200, "{body}");
        let status: Value = serde_json::from_str(&body).unwrap();
        if status["fast_lane"]["lag_records"] == 0 {
            return;
        }
        std::thread::park_timeout(std::time::Duration::from_millis(10));
    }
    panic!("the lane did not catch up");
}

/// Compares the ledger with the embedded warehouse in `folder`.
pub fn compare(folder: &Path, ledger: &Ledger) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let options = SqliteConnectOptions::new().filename(folder.join("warehouse.db"));
        let pool = SqlitePoolOptions::new().connect_with(options).await.unwrap();
        let rows = async |sql: &str| -> Rows {
            let rows = sqlx::query(AssertSqlSafe(sql.to_owned()));
            let rows = rows.fetch_all(&pool).await.unwrap();
            rows.iter()
                .map(|row| (0..row.len()).map(|n| row.get(n)).collect())
                .collect()
        };
        check(ledger, rows).await;
        pool.close().await;
    });
}

/// What a query answers, every column of which is cast to text.
pub type Rows = Vec<Vec<Option<String>>>;

/// Compares the ledger with a warehouse: every acknowledged event exactly once, every order once, and profiles that
/// add up to the orders.
pub async fn check(ledger: &Ledger, rows: impl AsyncFn(&str) -> Rows) {
    let pairs = async |sql: &str| -> BTreeMap<String, i64> {
        let rows = rows(sql).await.into_iter();
        rows.map(|row| {
            let [key, number] = &row[..] else {
                panic!("{row:?}")
            };
            (key.clone().unwrap(), number.as_ref().unwrap().parse().unwrap())
        })
        .collect()
    };
    let stored = pairs("select event_id, cast(count(*) as text) from fact_event group by event_id").await;
    let missing: Vec<_> = ledger
        .acknowledged
        .iter()
        .filter(|id| !stored.contains_key(*id))
        .collect();
    assert!(
        missing.is_empty(),
        "{} acknowledged events are lost: {missing:?}",
        missing.len()
    );
    assert!(stored.values().all(|n| *n == 1), "an event is counted twice");

    let orders = pairs("select order_id, cast(total_minor as text) from fact_order").await;
    assert!(
        ledger.orders.iter().all(|id| orders.get(id) == Some(&750)),
        "an order is missing or wrong"
    );
    let sums = "select cast(sum(orders) as text), cast(sum(revenue_minor) as text) from customer_profile";
    let sums: Vec<i64> = rows(sums).await[0]
        .iter()
        .map(|sum| sum.as_ref().unwrap().parse().unwrap())
        .collect();
    assert_eq!(
        sums,
        [orders.len() as i64, orders.len() as i64 * 750],
        "profiles and orders disagree"
    );
}
