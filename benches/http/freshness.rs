//! How soon an acknowledged event shows: in the next answer, and in the stores.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::Effort;
use crate::load::{self, Pace, Plan};
use crate::requests::{events_body, get, post, unique};
use crate::server::{SERVER_KEY, Server, exchange};

/// Puts 1,000 and 5,000 events/s on the node that `takes` events and, beside them, sends events of new shoppers whom the node
/// that `answers` must know. `worker` has the lane.
pub(crate) fn measure(takes: &Server, answers: &Server, worker: &Server, name: &str, effort: Effort) {
    for rate in [1_000.0, 5_000.0] {
        let done = AtomicBool::new(false);
        let before = lane_histogram(worker);
        let delays_ms = std::thread::scope(|scope| {
            let prober = scope.spawn(|| probe(takes, answers, &done));
            load::run(Plan {
                addr: takes.addr,
                connections: 32,
                pace: Pace::Background(rate),
                warm_up: Duration::from_millis(500),
                duration: effort.duration.max(Duration::from_secs(5)),
                request: &mut |n| post("/events", &events_body(n, 1)),
                pid: takes.pid(),
                expect: 202,
            });
            done.store(true, Ordering::Relaxed);
            prober.join().expect("the prober")
        });
        let lane = lane_histogram(worker).since(&before);
        let quantile = |q: f64| delays_ms[((delays_ms.len() - 1) as f64 * q).round() as usize];
        let (answer_p50, answer_p99) = (quantile(0.5), quantile(0.99));
        let (store_p50, store_p99) = (lane.quantile_ms(0.5), lane.quantile_ms(0.99));
        println!(
            "{rate:>6} events/s: in the next answer p50 {answer_p50:.1} ms p99 {answer_p99:.1} ms (n={}); \
             in warehouse and hot store p50 {store_p50:.1} ms p99 {store_p99:.1} ms (within their buckets)",
            delays_ms.len()
        );
        println!(
            r#"{{"case":"{name}/{rate}","answer_p50_ms":{answer_p50:.2},"answer_p99_ms":{answer_p99:.2},"stores_p50_ms":{store_p50:.1},"stores_p99_ms":{store_p99:.1}}}"#
        );
    }
}

/// Sent in a second, whether or not the ones before have shown.
const PROBES_PER_SECOND: f64 = 50.0;

/// Between two questions: the resolution of the delays, and a bound on what asking costs the node that answers.
const ASK_EVERY: Duration = Duration::from_millis(2);

/// What has not shown when the load ends is waited for no longer than this, and counts as this late.
const PATIENCE: Duration = Duration::from_secs(10);

/// Sends events of new shoppers at a fixed rate and asks, in turn, until the answers know them; the delays in ms, ascending.
fn probe(takes: &Server, answers: &Server, done: &AtomicBool) -> Vec<f64> {
    let [mut told, mut asked] = [takes, answers].map(|server| {
        let stream = TcpStream::connect(server.addr).expect("a connection");
        stream.set_nodelay(true).expect("nodelay");
        stream
    });
    let (mut delays_ms, mut waiting) = (Vec::new(), VecDeque::new());
    let mut next = Instant::now();
    let mut ended = None;
    loop {
        let now = Instant::now();
        if ended.is_none() && done.load(Ordering::Relaxed) {
            ended = Some(now);
        }
        if ended.is_some_and(|ended| waiting.is_empty() || now - ended > PATIENCE) {
            break;
        }
        if ended.is_none() && next <= now {
            next += Duration::from_secs_f64(1.0 / PROBES_PER_SECOND);
            let shopper = format!("fresh-{}-{}", std::process::id(), unique());
            let event = format!(
                r#"{{"event_id":"{shopper}","event":"Product Viewed","user_id":"{shopper}","properties":{{"product_id":"22752"}}}}"#
            );
            let answer = ask(&mut told, &post("/events", &event));
            assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
            waiting.push_back((shopper, Instant::now()));
        }
        if let Some((shopper, acknowledged)) = waiting.pop_front() {
            let question = get(
                &format!("/personalize?user_id={shopper}&placements=promo"),
                SERVER_KEY,
            );
            if ask(&mut asked, &question).contains(r#""known":true"#) {
                delays_ms.push(acknowledged.elapsed().as_secs_f64() * 1e3);
            } else {
                waiting.push_back((shopper, acknowledged));
            }
        }
        std::thread::park_timeout(ASK_EVERY.saturating_sub(now.elapsed()));
    }
    delays_ms.extend(
        waiting
            .iter()
            .map(|(_, acknowledged)| acknowledged.elapsed().as_secs_f64() * 1e3),
    );
    delays_ms.sort_unstable_by(f64::total_cmp);
    delays_ms
}

/// One exchange on a keep-alive connection.
fn ask(stream: &mut TcpStream, request: &[u8]) -> String {
    stream.write_all(request).expect("the request is sent");
    let mut answer = Vec::new();
    let mut scratch = [0; 16 << 10];
    while load::complete(&answer).is_none() {
        let count = stream.read(&mut scratch).expect("an answer");
        assert!(count > 0, "the server closed the connection");
        answer.extend_from_slice(&scratch[..count]);
    }
    String::from_utf8(answer).expect("a text answer")
}

/// Waits until the lane has applied the whole log.
pub(crate) fn wait_until_applied(server: &Server) {
    let started = Instant::now();
    loop {
        let status = server
            .get(server.operator, "/operator/v1/status")
            .unwrap_or_default();
        if status.contains(r#""lag_records":0"#) {
            return;
        }
        assert!(
            started.elapsed() < Duration::from_secs(120),
            "the lane does not catch up: {status}"
        );
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// Cumulative counts by upper bound in seconds.
struct Histogram(Vec<(f64, u64)>);

fn lane_histogram(server: &Server) -> Histogram {
    let request = format!(
        "GET /metrics HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n",
        server.operator
    );
    let text = exchange(server.operator, request.as_bytes()).unwrap_or_default();
    let buckets = text
        .lines()
        .filter(|line| line.starts_with("cartwright_lane_freshness_seconds_bucket"));
    Histogram(
        buckets
            .filter_map(|line| {
                let bound = line.split_once("le=\"")?.1.split_once('"')?.0;
                let count = line.rsplit_once(' ')?.1.parse::<f64>().ok()? as u64;
                Some((bound.parse().unwrap_or(f64::INFINITY), count))
            })
            .collect(),
    )
}

impl Histogram {
    fn since(&self, before: &Histogram) -> Histogram {
        let earlier = |bound: f64| {
            before
                .0
                .iter()
                .find(|(at, _)| *at == bound)
                .map_or(0, |(_, count)| *count)
        };
        Histogram(
            self.0
                .iter()
                .map(|(bound, count)| (*bound, count - earlier(*bound)))
                .collect(),
        )
    }

    /// The quantile in ms, where values are taken to lie evenly in their bucket, as Prometheus' `histogram_quantile` does.
    fn quantile_ms(&self, q: f64) -> f64 {
        let total = self.0.last().map_or(0, |(_, count)| *count);
        let rank = total as f64 * q;
        let mut below = (0.0, 0);
        for &(bound, count) in &self.0 {
            if count as f64 >= rank && count > below.1 {
                let share = (rank - below.1 as f64) / (count - below.1) as f64;
                return (below.0 + (bound - below.0) * share) * 1e3;
            }
            below = (bound, count);
        }
        f64::NAN
    }
}
