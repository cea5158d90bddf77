//! A shop's history ends in the warehouse to the penny, once, in whatever order its rows come.
//!
//! The expected figures come from `scripts/totals.py`, which shares no code with the importer.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use flate2::read::MultiGzDecoder;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};

use crate::support::process::{Process, free_addr};

const EXCERPT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/examples/online-retail/online-retail-excerpt.csv.gz"
);

/// `scripts/totals.py examples/online-retail/online-retail-excerpt.csv.gz --json`
const EXCERPT_TOTALS: [(&str, i64); 10] = [
    ("orders", 1_711),
    ("order_lines", 40_623),
    ("charge_lines", 179),
    ("quantity", 528_524),
    ("revenue_pence", 92_539_917),
    ("charges_pence", 3_289_312),
    ("refunds", 329),
    ("refunded_pence", 5_180_618),
    ("customers", 1_092),
    ("guests", 189),
];

/// The same for the whole data set of `CARTWRIGHT_DATASETS`.
const WHOLE: &str = "online_retail_2010-12_to_2011-09.csv.gz";
const WHOLE_TOTALS: [(&str, i64); 10] = [
    ("orders", 14_873),
    ("order_lines", 363_253),
    ("charge_lines", 1_727),
    ("quantity", 3_945_583),
    ("revenue_pence", 735_235_417),
    ("charges_pence", 26_016_892),
    ("refunds", 2_887),
    ("refunded_pence", 55_967_311),
    ("customers", 3_658),
    ("guests", 1_840),
];

/// Everything that a second import could have changed; `revenue_pence` is counted in four places.
const QUERIES: [(&str, &str); 16] = [
    ("orders", "select count(*) from fact_order where cancelled = 0"),
    ("order_lines", "select count(*) from fact_order_line"),
    (
        "charge_lines",
        "select count(*) from fact_order_line where is_charge = 1",
    ),
    ("quantity", "select sum(quantity) from fact_order_line"),
    ("revenue_pence", "select sum(total_minor) from fact_order"),
    (
        "charges_pence",
        "select sum(amount_minor) from fact_order_line where is_charge = 1",
    ),
    ("refunds", "select count(*) from fact_refund"),
    ("refunded_pence", "select sum(amount_minor) from fact_refund"),
    (
        "customers",
        "select count(*) from (select subject from fact_order union select subject from fact_refund) where subject like 'u:%'",
    ),
    (
        "guests",
        "select count(*) from (select subject from fact_order union select subject from fact_refund) where subject like 'a:%'",
    ),
    ("events", "select count(*) from fact_event"),
    ("quarantined", "select count(*) from quarantine"),
    (
        "revenue_of_lines",
        "select sum(amount_minor) from fact_order_line where currency = 'GBP'",
    ),
    (
        "revenue_of_profiles",
        "select sum(revenue_minor) from customer_profile",
    ),
    (
        "refunded_of_profiles",
        "select sum(refunded_minor) from customer_profile",
    ),
    ("orders_of_profiles", "select sum(orders) from customer_profile"),
];

#[test]
fn an_import_in_any_order_and_any_number_gives_the_independent_totals() {
    let (folder, scratch) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    once_twice_and_shuffled(folder.path(), Path::new(EXCERPT), scratch.path(), &EXCERPT_TOTALS);
}

#[test]
#[ignore = "long: the whole data set, make test-long"]
#[allow(clippy::disallowed_methods)] // Where the data sets are is the tester's to say.
fn the_whole_history_in_any_order_and_any_number_gives_the_independent_totals() {
    let datasets = std::env::var_os("CARTWRIGHT_DATASETS")
        .unwrap_or_else(|| panic!("set CARTWRIGHT_DATASETS to the folder that holds {WHOLE}"));
    let (folder, scratch) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    once_twice_and_shuffled(
        folder.path(),
        &PathBuf::from(datasets).join(WHOLE),
        scratch.path(),
        &WHOLE_TOTALS,
    );
}

fn once_twice_and_shuffled(folder: &Path, file: &Path, scratch: &Path, totals: &[(&str, i64)]) {
    let shuffled = shuffle(file, scratch);

    let output = import(folder, &[file.to_str().unwrap()]);
    assert!(output.status.success(), "{output:?}");
    let first = figures(folder);
    assert_totals(&first, totals);

    for again in [file, &shuffled] {
        let output = import(folder, &[again.to_str().unwrap()]);
        assert!(output.status.success(), "{output:?}");
        assert_eq!(figures(folder), first, "{} changed something", again.display());
    }

    let fresh = tempfile::tempdir().unwrap();
    let output = import(fresh.path(), &[shuffled.to_str().unwrap()]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(figures(fresh.path()), first, "the order of the rows matters");
}

#[test]
fn an_import_beside_a_running_server_goes_through_it() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::start(folder.path());
    let operator = process.operator.to_string();
    let output = import(folder.path(), &[EXCERPT, "--operator-listen", &operator]);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("2,040 events sent; what was accepted is in the warehouse"),
        "{text}"
    );
    assert_totals(&figures(folder.path()), &EXCERPT_TOTALS);

    let output = import(
        folder.path(),
        &[EXCERPT, "--operator-listen", &free_addr().to_string()],
    );
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        !output.status.success() && text.contains("in use by another process"),
        "{text}"
    );
    process.terminate();
}

#[test]
fn a_file_with_a_bad_row_is_refused_whole_and_by_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad.csv");
    let mut text = plain(Path::new(EXCERPT));
    text.push_str("1,85123A,HEART,many,2011-09-01 10:00:00,1.00,,France\n");
    std::fs::write(&path, text).unwrap();
    let output = import(folder.path(), &[path.to_str().unwrap()]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(
        text.contains("line 41536: Quantity `many` is not a whole number"),
        "{text}"
    );
    assert!(!folder.path().join("warehouse.db").exists(), "nothing was opened");
}

#[test]
fn a_dry_run_counts_and_touches_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let output = import(folder.path(), &[EXCERPT, "--dry-run"]);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("1,092 customers, 189 guests"), "{text}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn the_demo_shows_an_answer_that_changes() {
    let output = Command::new(env!("CARGO_BIN_EXE_cartwright"))
        .args(["demo", "--exit"])
        .env("CARTWRIGHT_LISTEN", "127.0.0.1:0")
        .env("CARTWRIGHT_OPERATOR_LISTEN", "127.0.0.1:0")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(text.contains("The answer changed"), "{text}");
}

fn import(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cartwright"))
        .args(["import", "--format", "online-retail"])
        .args(arguments)
        .env("CARTWRIGHT_DATA_DIR", folder)
        .env("CARTWRIGHT_LOG", "warn")
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn assert_totals(figures: &BTreeMap<&str, i64>, totals: &[(&str, i64)]) {
    for (name, expected) in totals {
        assert_eq!(figures.get(name), Some(expected), "{name}");
    }
    assert_eq!(figures["events"], figures["orders"] + figures["refunds"]);
    assert_eq!(figures["quarantined"], 0);
    assert_eq!(figures["revenue_of_lines"], figures["revenue_pence"]);
    assert_eq!(figures["revenue_of_profiles"], figures["revenue_pence"]);
    assert_eq!(figures["refunded_of_profiles"], figures["refunded_pence"]);
    assert_eq!(figures["orders_of_profiles"], figures["orders"]);
}

fn figures(folder: &Path) -> BTreeMap<&'static str, i64> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let options = SqliteConnectOptions::new().filename(folder.join("warehouse.db"));
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .connect_with(options)
            .await
            .unwrap();
        let mut figures = BTreeMap::new();
        for (name, query) in QUERIES {
            let figure: Option<i64> = sqlx::query_scalar(query).fetch_one(&pool).await.unwrap();
            figures.insert(name, figure.unwrap_or_default());
        }
        pool.close().await;
        figures
    })
}

fn plain(file: &Path) -> String {
    let mut text = String::new();
    MultiGzDecoder::new(File::open(file).unwrap())
        .read_to_string(&mut text)
        .unwrap();
    text
}

/// The same rows in another order, which is the same at every run. No row of the data set has a line break inside.
fn shuffle(file: &Path, scratch: &Path) -> PathBuf {
    let text = plain(file);
    let mut rows: Vec<&str> = text.lines().collect();
    let header = rows.remove(0);
    let mut state: u64 = 1;
    for last in (1..rows.len()).rev() {
        // Knuth's MMIX generator; its upper half is random enough for this.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let chosen = (state >> 33) as usize % (last + 1);
        rows.swap(last, chosen);
    }
    let path = scratch.join("shuffled.csv");
    let mut out = std::io::BufWriter::new(File::create(&path).unwrap());
    writeln!(out, "{header}").unwrap();
    for row in rows {
        writeln!(out, "{row}").unwrap();
    }
    out.flush().unwrap();
    path
}
