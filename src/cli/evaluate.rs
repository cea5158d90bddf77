//! `cartwright evaluate`: how good session recommendations are on sessions that the shop already has.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context as _;

use super::input;
use super::progress::Progress;
use crate::domain::recommend::sessions::{Interaction, SessionIndex, Tuning, evaluate};
use crate::import::sessions;

/// Measures session recommendations on recorded sessions, without a server.
///
/// Learns from one file and walks the sessions of the other: each item is predicted from those before it in its
/// session. Prints MRR@N (the mean of 1/rank of the item that came next), HitRate@N (how often it was among the N
/// suggested), and coverage (which share of all items was suggested at least once).
///
/// A file has one row for each item touched, with the columns SessionId, ItemId and Time (Unix seconds), separated
/// by tabs, plain or gzipped, in any order.
///
/// Example: cartwright evaluate --train train.tsv.gz --test valid.tsv.gz
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Args {
    /// The sessions to learn from.
    #[arg(long, value_name = "FILE")]
    train: PathBuf,
    /// The sessions to predict; later ones than those learnt from, or the figures flatter.
    #[arg(long, value_name = "FILE")]
    test: PathBuf,
    /// N: how many suggestions count.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    cutoff: u16,
    /// How many of the most recent sessions with an item in common are looked at.
    #[arg(long, value_name = "N", default_value_t = Tuning::default().sample)]
    sample: usize,
    /// How many of the most similar ones among them count.
    #[arg(long, value_name = "N", default_value_t = Tuning::default().neighbours)]
    neighbours: usize,
    /// What an item weighs against the one that came after it.
    #[arg(long, value_name = "FACTOR", default_value_t = Tuning::default().decay)]
    decay: f32,
    /// The power of the inverse document frequency; 0 treats all items alike.
    #[arg(long, value_name = "POWER", default_value_t = Tuning::default().rarity)]
    rarity: f32,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let tuning = Tuning {
        sample: args.sample,
        neighbours: args.neighbours,
        decay: args.decay,
        rarity: args.rarity,
    };
    let train = read(&args.train)?;
    let test = read(&args.test)?;
    let interactions = train.len();

    let started = Instant::now();
    let index = SessionIndex::build(train, tuning);
    let built = started.elapsed();
    let started = Instant::now();
    let quality = evaluate(&index, test, usize::from(args.cutoff));
    let predicted = started.elapsed();

    let n = quality.cutoff;
    println!(
        "learnt       {interactions} interactions, {} sessions, {} items in {:.0} ms; {:.1} MB of lists",
        index.session_count(),
        index.item_count(),
        built.as_secs_f64() * 1e3,
        index.size_bytes() as f64 / 1e6,
    );
    println!(
        "predicted    {} times, {:.1} us each",
        quality.predictions,
        predicted.as_secs_f64() * 1e6 / quality.predictions.max(1) as f64
    );
    println!("MRR@{n:<8} {:.4}", quality.mean_reciprocal_rank);
    println!("HitRate@{n:<4} {:.4}", quality.hit_rate);
    println!("coverage@{n:<3} {:.4}", quality.coverage);
    Ok(ExitCode::SUCCESS)
}

fn read(path: &Path) -> anyhow::Result<Vec<Interaction>> {
    let input = input::open(path)?;
    let mut progress = Progress::new("reading", "rows", None);
    let interactions = sessions::interactions(input, |rows| progress.set(rows))
        .with_context(|| format!("{} cannot be read", path.display()))?;
    progress.finish();
    Ok(interactions)
}
