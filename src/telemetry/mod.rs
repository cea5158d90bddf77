//! Logs and metrics: how a running Cartwright is watched.
//!
//! - One set of OpenTelemetry instruments, built once and passed by argument; never a global. `/metrics` renders
//!   them as Prometheus text, and a further exporter would read the same instruments.
//! - Names, units and label values are closed lists in this folder. A label is never an id, a path or any other
//!   text that a client chooses, so the number of series is bounded by what is written here.
//! - Recording is cheap enough for the request path: each combination of labels is bound to its aggregator the
//!   first time it is seen (`instruments::Grid`), and from then on a record is an index and an atomic or a short lock,
//!   without building, hashing or comparing attribute sets.
//! - Log lines go to standard error: for people on a terminal, as JSON elsewhere. Nothing here sees a request's
//!   query or body (invariant 6).
//!
//! What it does not do: it decides nothing. Readiness, retries and degraded answers never read a metric.

mod instruments;
mod labels;

use std::fmt;
use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use prometheus::{Registry, TextEncoder};
use tracing_subscriber::EnvFilter;

use instruments::{Counters, Gauges, Histograms, Instruments};
use labels::OTHER;
pub use labels::{Lane, Outcome, ReadSource, Receipt, Record, Route, Store, Told};

/// The instruments of one process. Cloning shares them.
#[derive(Clone)]
pub struct Metrics(Arc<Instruments>);

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

/// Why telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("metrics could not be set up: {0}")]
    Metrics(#[source] opentelemetry_sdk::error::OTelSdkError),
    #[error("log filter {filter:?}: {reason}")]
    Filter { filter: String, reason: String },
    #[error("a log subscriber is already installed")]
    Installed,
}

impl Metrics {
    /// Builds all instruments.
    ///
    /// # Errors
    /// [`TelemetryError::Metrics`] when the exporter cannot be registered.
    pub fn new() -> Result<Self, TelemetryError> {
        let registry = Registry::new();
        let exporter = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .without_target_info()
            .scope_info_enabled(false)
            .build()
            .map_err(TelemetryError::Metrics)?;
        let resource = Resource::builder_empty().with_service_name("cartwright").build();
        let provider = SdkMeterProvider::builder()
            .with_reader(exporter)
            .with_resource(resource)
            .build();
        let instruments = Instruments::new(provider, registry);
        instruments
            .build
            .record(1, &[KeyValue::new("version", env!("CARGO_PKG_VERSION"))]);
        Ok(Metrics(Arc::new(instruments)))
    }

    /// One HTTP request, answered with `status` after `elapsed`.
    pub fn request(&self, route: Route, status: u16, elapsed: Duration) {
        let mut digits = [b'0'; 3];
        for (digit, divisor) in digits.iter_mut().zip([100, 10, 1]) {
            *digit = b'0' + (status / divisor % 10) as u8;
        }
        seconds(
            &self.0.requests,
            route.as_str(),
            std::str::from_utf8(&digits).unwrap_or(OTHER),
            elapsed,
        );
    }

    /// One placement was filled: its kind and the reason of its answer, as written in the answer.
    pub fn decision(&self, kind: &str, reason: &str) {
        add(&self.0.decisions, kind, reason, 1);
    }

    /// An answer said what it could not know; `code` is one of the closed list of degradations.
    pub fn degraded(&self, code: &'static str) {
        self.0.degraded.add(1, &[KeyValue::new("code", code)]);
    }

    pub fn decision_record(&self, record: Record) {
        add(&self.0.decision_records, record.as_str(), "", 1);
    }

    /// Conditions that erred and therefore counted as false.
    pub fn condition_errors(&self, count: u64) {
        add(&self.0.condition_errors, "", "", count);
    }

    pub fn profile_read(&self, source: ReadSource, elapsed: Duration) {
        seconds(&self.0.profile_reads, source.as_str(), "", elapsed);
    }

    /// What became of one event that a client sent.
    pub fn receipt(&self, receipt: Receipt) {
        add(&self.0.receipts, receipt.as_str(), "", 1);
    }

    /// Events that nodes tell each other.
    pub fn told(&self, told: Told, events: usize) {
        add(&self.0.told, told.as_str(), "", events as u64);
    }

    /// One append to the log: how it ended, how many events it carried, how long it took until durable.
    pub fn append(&self, outcome: Outcome, events: usize, elapsed: Duration) {
        seconds(&self.0.appends, outcome.as_str(), "", elapsed);
        add(&self.0.appended, outcome.as_str(), "", events as u64);
    }

    /// One batch of a lane: how applying it ended, its records, and the time it took.
    pub fn lane_batch(&self, lane: Lane, outcome: Outcome, records: usize, elapsed: Duration) {
        seconds(&self.0.batches, lane.as_str(), outcome.as_str(), elapsed);
        if let Some(cell) = self.0.batch_records.at(lane.as_str(), "") {
            cell.record(records as f64);
        }
    }

    /// A lane tries again, because of `outcome`.
    pub fn lane_retry(&self, lane: Lane, outcome: Outcome) {
        add(&self.0.retries, lane.as_str(), outcome.as_str(), 1);
    }

    /// How far a lane is behind the log: records not yet applied, and the age of the oldest of them.
    pub fn lane_lag(&self, lane: Lane, records: u64, age_ms: u64) {
        set(&self.0.lag_records, lane.as_str(), records);
        set(&self.0.lag_age, lane.as_str(), age_ms);
    }

    /// Whether a lane runs; one that stopped on its own needs its operator.
    pub fn lane_running(&self, lane: Lane, running: bool) {
        set(&self.0.lane_running, lane.as_str(), u64::from(running));
    }

    /// Whether a store is left alone because it does not answer.
    pub fn breaker_open(&self, store: Store, open: bool) {
        set(&self.0.breaker_open, store.as_str(), u64::from(open));
    }

    /// What the near cache takes.
    pub fn near_size(&self, bytes: u64) {
        set(&self.0.near_bytes, "", bytes);
    }

    /// The time from an event's receipt until its effect was readable.
    pub fn freshness(&self, lane: Lane, elapsed: Duration) {
        seconds(&self.0.freshness, lane.as_str(), "", elapsed);
    }

    /// One record went to quarantine; `code` is a stable reason code of ours, never text of a client.
    pub fn quarantined(&self, code: &str) {
        self.0
            .quarantined
            .add(1, &[KeyValue::new("code", code.to_owned())]);
    }

    /// Profiles offered to the hot store.
    pub fn hot_write(&self, outcome: Outcome, profiles: usize) {
        add(&self.0.hot_writes, outcome.as_str(), "", profiles as u64);
    }

    /// The bytes that the log takes.
    pub fn log_size(&self, size_bytes: u64) {
        set(&self.0.log_bytes, "", size_bytes);
    }

    /// The version of the ruleset in force; 0 is the built-in one.
    pub fn ruleset_version(&self, version: u64) {
        set(&self.0.ruleset_version, "", version);
    }

    pub fn ruleset_refresh(&self, outcome: Outcome) {
        add(&self.0.ruleset_refreshes, outcome.as_str(), "", 1);
    }

    /// A population model was built from `orders` orders.
    pub fn population_refresh(&self, outcome: Outcome, orders: usize, elapsed: Duration) {
        set(&self.0.population_orders, "", orders as u64);
        seconds(&self.0.population_refreshes, outcome.as_str(), "", elapsed);
    }

    pub fn ready(&self, ready: bool) {
        set(&self.0.ready, "", u64::from(ready));
    }

    /// All instruments in Prometheus' text format, version 0.0.4.
    pub fn render(&self) -> String {
        // Encoding writes to memory and fails only on a family without samples, which the exporter never makes.
        TextEncoder::new()
            .encode_to_string(&self.0.registry.gather())
            .unwrap_or_default()
    }
}

fn seconds(grid: &Histograms, row: &str, column: &str, elapsed: Duration) {
    if let Some(cell) = grid.at(row, column) {
        cell.record(elapsed.as_secs_f64());
    }
}

fn add(grid: &Counters, row: &str, column: &str, count: u64) {
    if let Some(cell) = grid.at(row, column) {
        cell.add(count);
    }
}

fn set(grid: &Gauges, row: &str, value: u64) {
    if let Some(cell) = grid.at(row, "") {
        cell.record(value);
    }
}

/// Installs the process's log subscriber: `filter` in the syntax of `tracing_subscriber::EnvFilter`
/// (`info`, `cartwright=debug,warn`). Called once, by the commands that run the product.
///
/// # Errors
/// [`TelemetryError::Filter`] when `filter` cannot be parsed, [`TelemetryError::Installed`] on a second call.
pub fn init_logs(filter: &str) -> Result<(), TelemetryError> {
    let filter = log_filter(filter)?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let installed = if std::io::stderr().is_terminal() {
        builder.with_target(false).with_ansi(false).try_init()
    } else {
        builder.json().flatten_event(true).try_init()
    };
    installed.map_err(|_| TelemetryError::Installed)
}

/// Parses a log filter.
///
/// # Errors
/// [`TelemetryError::Filter`].
pub fn log_filter(filter: &str) -> Result<EnvFilter, TelemetryError> {
    EnvFilter::builder()
        .parse(filter)
        .map_err(|error| TelemetryError::Filter {
            filter: filter.to_owned(),
            reason: error.to_string(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instruments_render_with_help_unit_and_closed_labels() {
        let metrics = Metrics::new().unwrap();
        metrics.request(Route::GetPersonalize, 200, Duration::from_micros(300));
        metrics.request(Route::GetPersonalize, 299, Duration::from_micros(300));
        metrics.decision("content", "split");
        metrics.decision("content", "something new");
        metrics.append(Outcome::Ok, 3, Duration::from_millis(1));
        metrics.lane_lag(Lane::Fast, 7, 12);
        metrics.ready(true);
        let text = metrics.render();
        for line in [
            "# TYPE cartwright_http_request_duration_seconds histogram",
            "cartwright_http_request_duration_seconds_count{route=\"get_personalize\",status=\"200\"} 1",
            "cartwright_http_request_duration_seconds_count{route=\"get_personalize\",status=\"other\"} 1",
            "cartwright_decisions_total{kind=\"content\",reason=\"split\"} 1",
            "cartwright_decisions_total{kind=\"content\",reason=\"other\"} 1",
            "cartwright_log_append_events_total{outcome=\"ok\"} 3",
            "cartwright_lane_lag_records{lane=\"fast\"} 7",
            "cartwright_ready 1",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
        let families = text.lines().filter(|line| line.starts_with("# TYPE")).count();
        assert_eq!(
            text.lines().filter(|line| line.starts_with("# HELP")).count(),
            families
        );
    }

    #[test]
    fn log_filters_are_checked() {
        assert!(log_filter("info,cartwright=debug").is_ok());
        assert!(matches!(
            log_filter("cartwright=loud"),
            Err(TelemetryError::Filter { .. })
        ));
    }
}
