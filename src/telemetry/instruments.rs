//! The instruments: names, units and descriptions, and their cells bound on first use.

use std::sync::OnceLock;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{
    BoundCounter, BoundGauge, BoundHistogram, Counter, Gauge, Meter, MeterProvider as _,
};
use opentelemetry_sdk::metrics::SdkMeterProvider;
use prometheus::Registry;

use super::labels::{
    KINDS, Lane, Outcome, REASONS, ReadSource, Receipt, Record, Route, STATUSES, Store, Told,
};

/// The only value of a dimension that an instrument does not use.
const SINGLE: &[&str] = &[""];

/// Bucket bounds in seconds. Dense from 50 us to 50 ms, where the budget of an answer is spent; above it, only
/// what tells a stall from a timeout.
const SECONDS: &[f64] = &[
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0,
];
/// Bucket bounds for the number of records of a batch.
const RECORDS: &[f64] = &[1.0, 4.0, 16.0, 64.0, 256.0, 1_024.0, 4_096.0, 16_384.0];

/// The instruments bound so far for each combination of two labels.
pub(super) struct Grid<I> {
    rows: &'static [&'static str],
    columns: &'static [&'static str],
    cells: Box<[OnceLock<I>]>,
    bind: Box<dyn Fn(&'static str, &'static str) -> I + Send + Sync>,
}

impl<I> Grid<I> {
    fn new(
        rows: &'static [&'static str],
        columns: &'static [&'static str],
        bind: impl Fn(&'static str, &'static str) -> I + Send + Sync + 'static,
    ) -> Self {
        let cells = (0..rows.len() * columns.len()).map(|_| OnceLock::new()).collect();
        Grid {
            rows,
            columns,
            cells,
            bind: Box::new(bind),
        }
    }

    /// The instrument of a combination; a text outside its list counts as the list's last value.
    pub(super) fn at(&self, row: &str, column: &str) -> Option<&I> {
        let place = |list: &'static [&'static str], text: &str| {
            // Nearly always it is the list's own text, so its address will do.
            list.iter()
                .position(|known| std::ptr::eq(*known, text))
                .or_else(|| list.iter().position(|known| *known == text))
                .unwrap_or(list.len().saturating_sub(1))
        };
        let (row, column) = (place(self.rows, row), place(self.columns, column));
        let cell = self.cells.get(row * self.columns.len() + column)?;
        let (row, column) = (self.rows.get(row)?, self.columns.get(column)?);
        Some(cell.get_or_init(|| (self.bind)(row, column)))
    }
}

pub(super) type Histograms = Grid<BoundHistogram<f64>>;
pub(super) type Counters = Grid<BoundCounter<u64>>;
pub(super) type Gauges = Grid<BoundGauge<u64>>;

fn attributes(pairs: [(&'static str, &'static str); 2]) -> Vec<KeyValue> {
    pairs
        .into_iter()
        .filter(|(key, _)| !key.is_empty())
        .map(|(key, value)| KeyValue::new(key, value))
        .collect()
}

/// One label of an instrument: its key and its closed list of values.
type Dimension = (&'static str, &'static [&'static str]);
/// Fills the place of a second label.
const NO_LABEL: Dimension = ("", SINGLE);

struct Definition {
    name: &'static str,
    unit: &'static str,
    description: &'static str,
    labels: [Dimension; 2],
}

impl Definition {
    fn histogram(self, meter: &Meter, bounds: &[f64]) -> Histograms {
        let instrument = meter
            .f64_histogram(self.name)
            .with_unit(self.unit)
            .with_description(self.description)
            .with_boundaries(bounds.to_vec())
            .build();
        let [(row_key, rows), (column_key, columns)] = self.labels;
        Grid::new(rows, columns, move |row, column| {
            instrument.bind(&attributes([(row_key, row), (column_key, column)]))
        })
    }

    fn counter(self, meter: &Meter) -> Counters {
        let instrument = meter
            .u64_counter(self.name)
            .with_unit(self.unit)
            .with_description(self.description)
            .build();
        let [(row_key, rows), (column_key, columns)] = self.labels;
        Grid::new(rows, columns, move |row, column| {
            instrument.bind(&attributes([(row_key, row), (column_key, column)]))
        })
    }

    fn gauge(self, meter: &Meter) -> Gauges {
        let instrument = meter
            .u64_gauge(self.name)
            .with_unit(self.unit)
            .with_description(self.description)
            .build();
        let [(row_key, rows), (column_key, columns)] = self.labels;
        Grid::new(rows, columns, move |row, column| {
            instrument.bind(&attributes([(row_key, row), (column_key, column)]))
        })
    }
}

pub(super) struct Instruments {
    /// Owns the pipeline that the registry reads from.
    _provider: SdkMeterProvider,
    pub(super) registry: Registry,
    pub(super) requests: Histograms,
    pub(super) decisions: Counters,
    pub(super) degraded: Counter<u64>,
    pub(super) decision_records: Counters,
    pub(super) condition_errors: Counters,
    pub(super) profile_reads: Histograms,
    pub(super) receipts: Counters,
    pub(super) told: Counters,
    pub(super) appends: Histograms,
    pub(super) appended: Counters,
    pub(super) batches: Histograms,
    pub(super) batch_records: Histograms,
    pub(super) retries: Counters,
    pub(super) lag_records: Gauges,
    pub(super) lag_age: Gauges,
    pub(super) lane_running: Gauges,
    pub(super) freshness: Histograms,
    pub(super) quarantined: Counter<u64>,
    pub(super) hot_writes: Counters,
    pub(super) breaker_open: Gauges,
    pub(super) near_bytes: Gauges,
    pub(super) log_bytes: Gauges,
    pub(super) ruleset_version: Gauges,
    pub(super) ruleset_refreshes: Counters,
    pub(super) population_orders: Gauges,
    pub(super) population_refreshes: Histograms,
    pub(super) ready: Gauges,
    pub(super) build: Gauge<u64>,
}

/// Declares an instrument: name, unit, labels, description.
fn define(
    name: &'static str,
    unit: &'static str,
    labels: [Dimension; 2],
    description: &'static str,
) -> Definition {
    Definition {
        name,
        unit,
        description,
        labels,
    }
}

#[rustfmt::skip]
impl Instruments {
    pub(super) fn new(provider: SdkMeterProvider, registry: Registry) -> Self {
        let meter = provider.meter("cartwright");
        let m = &meter;
        let lane: Dimension = ("lane", Lane::TEXTS);
        let outcome: Dimension = ("outcome", Outcome::TEXTS);
        let none = [NO_LABEL, NO_LABEL];
        Instruments {
            requests: define("cartwright.http.request.duration", "s", [("route", Route::TEXTS), ("status", STATUSES)],
                "Time from a request's head to its answer").histogram(m, SECONDS),
            decisions: define("cartwright.decisions", "", [("kind", KINDS), ("reason", REASONS)],
                "Placements filled").counter(m),
            degraded: m.u64_counter("cartwright.degraded")
                .with_description("Answers that lacked something, by what they lacked").build(),
            decision_records: define("cartwright.decision.records", "", [("result", Record::TEXTS), NO_LABEL],
                "Decision records, by what became of them").counter(m),
            condition_errors: define("cartwright.condition.errors", "", none,
                "Conditions that erred and counted as false").counter(m),
            profile_reads: define("cartwright.profile.read.duration", "s", [("source", ReadSource::TEXTS), NO_LABEL],
                "Time to read a profile, by where it was found").histogram(m, SECONDS),
            receipts: define("cartwright.events.received", "", [("status", Receipt::TEXTS), NO_LABEL],
                "Events sent by clients, by receipt").counter(m),
            told: define("cartwright.peer.events", "", [("result", Told::TEXTS), NO_LABEL],
                "Events that nodes tell each other, by what became of them").counter(m),
            appends: define("cartwright.log.append.duration", "s", [outcome, NO_LABEL],
                "Time of an append to the log until it was durable").histogram(m, SECONDS),
            appended: define("cartwright.log.append.events", "", [outcome, NO_LABEL],
                "Events offered to the log").counter(m),
            batches: define("cartwright.lane.batch.duration", "s", [lane, outcome],
                "Time to apply one batch").histogram(m, SECONDS),
            batch_records: define("cartwright.lane.batch.records", "", [lane, NO_LABEL],
                "Records of a batch").histogram(m, RECORDS),
            retries: define("cartwright.lane.retries", "", [lane, outcome],
                "Batches tried again, by why").counter(m),
            lag_records: define("cartwright.lane.lag.records", "", [lane, NO_LABEL],
                "Records of the log that a lane has not applied").gauge(m),
            lag_age: define("cartwright.lane.lag.age", "ms", [lane, NO_LABEL],
                "Age of the oldest record that a lane has not applied").gauge(m),
            lane_running: define("cartwright.lane.running", "", [lane, NO_LABEL],
                "Whether a lane runs: 1 or 0").gauge(m),
            freshness: define("cartwright.lane.freshness", "s", [lane, NO_LABEL],
                "Time from an event's receipt until its effect was readable").histogram(m, SECONDS),
            quarantined: m.u64_counter("cartwright.quarantined")
                .with_description("Records put into quarantine, by reason code").build(),
            hot_writes: define("cartwright.hot.writes", "", [outcome, NO_LABEL],
                "Profiles offered to the hot store").counter(m),
            breaker_open: define("cartwright.breaker.open", "", [("store", Store::TEXTS), NO_LABEL],
                "Whether a store is left alone because it does not answer: 1 or 0").gauge(m),
            near_bytes: define("cartwright.near.size", "By", none,
                "Bytes of profiles kept in front of the hot store").gauge(m),
            log_bytes: define("cartwright.log.size", "By", none,
                "Bytes that the log takes").gauge(m),
            ruleset_version: define("cartwright.ruleset.version", "", none,
                "Version of the ruleset in force; 0 is the built-in one").gauge(m),
            ruleset_refreshes: define("cartwright.ruleset.refreshes", "", [outcome, NO_LABEL],
                "Looks for a newer ruleset").counter(m),
            population_orders: define("cartwright.population.orders", "", none,
                "Orders behind the population model").gauge(m),
            population_refreshes: define("cartwright.population.refresh.duration", "s", [outcome, NO_LABEL],
                "Time to build the population model").histogram(m, SECONDS),
            ready: define("cartwright.ready", "", none,
                "Whether this node takes traffic: 1 or 0").gauge(m),
            build: m.u64_gauge("cartwright.build.info")
                .with_description("Always 1; the label tells the version").build(),
            registry,
            _provider: provider,
        }
    }
}
