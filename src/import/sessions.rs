//! Click sessions, one row for each item touched: `SessionId`, `ItemId` and `Time` (Unix seconds, with a fraction or
//! without), separated by tabs, in any order.
//!
//! The form in which session recommenders publish their data; `cartwright evaluate` reads it.

use std::collections::HashMap;
use std::io::Read;
use std::sync::Arc;

use super::{ImportError, Problems, check_header, read};
use crate::domain::recommend::sessions::Interaction;

/// The columns, in order.
pub const HEADER: [&str; 3] = ["SessionId", "ItemId", "Time"];

/// Rows that are held at once, some 5 GB.
pub const ROW_LIMIT: u64 = 100_000_000;

/// Reads a whole file. `progress` is told the number of rows read, now and then.
///
/// # Errors
/// See [`ImportError`]; nothing is returned of a file with a bad row.
pub fn interactions(
    input: impl Read,
    mut progress: impl FnMut(u64),
) -> Result<Vec<Interaction>, ImportError> {
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(b'\t')
        .flexible(true)
        .has_headers(false)
        .from_reader(input);
    let mut record = csv::StringRecord::new();
    read(&mut reader, &mut record)?;
    check_header(&record, &HEADER)?;

    let mut interactions = Vec::new();
    let mut items: HashMap<String, Arc<str>> = HashMap::new();
    let mut problems = Problems::default();
    let mut rows = 0;
    while read(&mut reader, &mut record)? {
        if rows == ROW_LIMIT {
            return Err(ImportError::TooManyRows { limit: ROW_LIMIT });
        }
        rows += 1;
        match interaction(&record, &mut items) {
            Ok(interaction) => interactions.push(interaction),
            Err(reason) => problems.add(record.position().map_or(0, csv::Position::line), reason),
        }
        if rows.is_multiple_of(4096) {
            progress(rows);
        }
    }
    progress(rows);
    problems.none()?;
    Ok(interactions)
}

fn interaction(
    record: &csv::StringRecord,
    items: &mut HashMap<String, Arc<str>>,
) -> Result<Interaction, String> {
    let [session, item, time] = [0, 1, 2].map(|at| record.get(at).unwrap_or("").trim());
    if record.len() != HEADER.len() {
        return Err(format!("{} columns, expected {}", record.len(), HEADER.len()));
    }
    let session = session
        .parse()
        .map_err(|_| format!("SessionId {session:?} is not a whole number"))?;
    if item.is_empty() {
        return Err("ItemId is empty".to_owned());
    }
    let seconds: f64 = time
        .parse()
        .ok()
        .filter(|seconds: &f64| seconds.is_finite())
        .ok_or_else(|| format!("Time {time:?} is not a number of seconds"))?;
    // Names repeat; each is kept once.
    let item = match items.get(item) {
        Some(known) => Arc::clone(known),
        None => {
            let name: Arc<str> = Arc::from(item);
            items.insert(item.to_owned(), Arc::clone(&name));
            name
        }
    };
    Ok(Interaction {
        session,
        item,
        at: (seconds * 1e3) as i64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Vec<Interaction>, ImportError> {
        interactions(text.as_bytes(), |_| {})
    }

    #[test]
    fn rows_become_interactions() {
        let found = of("SessionId\tItemId\tTime\n7\tA-1\t1592337718.5\n8\tB\t12\n").unwrap();
        let found: Vec<_> = found
            .iter()
            .map(|one| (one.session, &*one.item, one.at))
            .collect();
        assert_eq!(found, [(7, "A-1", 1_592_337_718_500), (8, "B", 12_000)]);
    }

    #[test]
    fn every_bad_row_is_named_and_nothing_is_returned() {
        let error = of("SessionId\tItemId\tTime\n7\tA\t1\nx\tA\t1\n7\t\t1\n7\tA\tNaN\n7\tA\n").unwrap_err();
        let text = error.to_string();
        for said in [
            "4 bad rows",
            "line 3: SessionId \"x\" is not a whole number",
            "line 4: ItemId is empty",
            "line 5: Time \"NaN\" is not a number",
            "line 6: 2 columns, expected 3",
        ] {
            assert!(text.contains(said), "{said} is not in {text}");
        }
    }

    #[test]
    fn another_header_is_refused() {
        let error = of("a\tb\tc\n").unwrap_err();
        assert_eq!(
            error.to_string(),
            "the header is `a,b,c`, expected `SessionId,ItemId,Time`"
        );
    }
}
