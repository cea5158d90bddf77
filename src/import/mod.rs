//! Histories in foreign formats, turned into the events a shop would have sent.
//!
//! Why: a shop that starts today has years of orders behind it, and they must count like live ones. So an
//! import makes no rows of its own: it makes events, which go through the same log and lane as live traffic,
//! and every promise made for those (durable, once, to the penny) holds for it without a second proof.
//!
//! - **Pure.** A converter reads bytes and returns events and a summary. It opens no file, knows no clock and
//!   sends nothing; `cli::import` does.
//! - **All or nothing.** A file is read to its end before the first event leaves, so one bad row means that
//!   nothing was sent, and the error names the row.
//! - **Repeatable.** Event ids are derived from the file's own keys, so importing twice is importing once.
//! - **Accounted for.** Every row falls into exactly one class of the summary, and the classes add up to the
//!   file's rows.

pub mod online_retail;
pub mod sessions;

use std::io::Read;

/// An event in the JSON form that `POST /events` takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutgoingEvent {
    pub event_id: String,
    pub json: String,
}

/// What is wrong with one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowProblem {
    /// The line of the file, counted from 1, the header included.
    pub line: u64,
    pub reason: String,
}

/// Why a file was not converted.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file is of another format, or its columns are in another order.
    #[error("the header is `{found}`, expected `{expected}`")]
    Header { found: String, expected: String },
    /// The bytes could not be read: a truncated archive, a failing disk.
    #[error("line {line} could not be read")]
    Read {
        line: u64,
        #[source]
        source: csv::Error,
    },
    /// Rows that say nothing sensible. The first ones are listed, all are counted.
    #[error("{total} bad {}, so nothing was sent:{}", if *total == 1 { "row" } else { "rows" }, listed(problems, *total))]
    Rows { problems: Vec<RowProblem>, total: u64 },
    /// More rows than an import holds in memory.
    #[error("the file has more than {limit} rows; split it at an invoice's end and import the pieces")]
    TooManyRows { limit: u64 },
}

fn listed(problems: &[RowProblem], total: u64) -> String {
    let mut text = String::new();
    for problem in problems {
        text.push_str(&format!("\n  line {}: {}", problem.line, problem.reason));
    }
    if total > problems.len() as u64 {
        text.push_str("\n  …");
    }
    text
}

/// Bad rows that an error lists; enough to see the pattern.
const PROBLEM_LIMIT: usize = 10;

/// The rows that say nothing sensible, as they are found.
#[derive(Default)]
struct Problems {
    first: Vec<RowProblem>,
    total: u64,
}

impl Problems {
    fn add(&mut self, line: u64, reason: String) {
        self.total += 1;
        if self.first.len() < PROBLEM_LIMIT {
            self.first.push(RowProblem { line, reason });
        }
    }

    /// # Errors
    /// When there was one.
    fn none(self) -> Result<(), ImportError> {
        if self.total == 0 {
            return Ok(());
        }
        Err(ImportError::Rows {
            problems: self.first,
            total: self.total,
        })
    }
}

/// The next record; whether there was one.
fn read<R: Read>(reader: &mut csv::Reader<R>, record: &mut csv::StringRecord) -> Result<bool, ImportError> {
    reader.read_record(record).map_err(|source| ImportError::Read {
        line: source.position().unwrap_or(reader.position()).line(),
        source,
    })
}

fn check_header(record: &csv::StringRecord, expected: &[&str]) -> Result<(), ImportError> {
    // Spreadsheets like to put a byte order mark before the first name.
    let found: Vec<&str> = record
        .iter()
        .map(|name| name.trim_start_matches('\u{feff}').trim())
        .collect();
    if found == expected {
        return Ok(());
    }
    let found: String = found.join(",").chars().take(200).collect();
    Err(ImportError::Header {
        found,
        expected: expected.join(","),
    })
}
