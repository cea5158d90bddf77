//! What session recommendations cost: building the index, its memory, and one prediction.
//!
//! `cargo bench --bench recommend`. Sessions are drawn from a made-up shop whose items fall into themes; with
//! `CARTWRIGHT_DATASETS` set to a folder with `sessions_train.tsv.gz` and `sessions_valid.tsv.gz`, from those files as
//! well. The baseline of a prediction, in the same run, is the method with hash maps and a sort.

#![allow(clippy::disallowed_macros)] // A benchmark prints its table.
#![allow(clippy::disallowed_methods)] // Where the data sets are is the caller's to say.

use std::collections::HashMap;
use std::fs::File;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use cartwright::domain::recommend::sessions::{
    Interaction, MAX_RECENT, Scratch, SessionIndex, Tuning, evaluate,
};
use cartwright::import::sessions;
use flate2::read::MultiGzDecoder;

const SUGGESTIONS: usize = 20;
const ROUNDS: usize = 9;

fn main() {
    println!(
        "shop | interactions | build ms | MB per million | predict us p50 / p90 / p99 | plain us p50 | ratio"
    );
    for interactions in [100_000, 1_000_000] {
        let all = made_up(interactions);
        let (train, asked) = all.split_at(all.len() - 10_000);
        report(&format!("made up, {interactions}"), train, asked);
    }
    let Some(folder) = std::env::var_os("CARTWRIGHT_DATASETS") else {
        return;
    };
    let read = |name: &str| -> Result<Vec<Interaction>, Box<dyn std::error::Error>> {
        let file = File::open(Path::new(&folder).join(name))?;
        Ok(sessions::interactions(MultiGzDecoder::new(file), |_| {})?)
    };
    match (read("sessions_train.tsv.gz"), read("sessions_valid.tsv.gz")) {
        (Ok(train), Ok(valid)) => {
            report("session files", &train, &valid);
            let quality = evaluate(&SessionIndex::build(train, Tuning::default()), valid, SUGGESTIONS);
            println!(
                "session files: MRR@20 {:.4}, HitRate@20 {:.4}, coverage {:.4}",
                quality.mean_reciprocal_rank, quality.hit_rate, quality.coverage
            );
        }
        (Err(error), _) | (_, Err(error)) => println!("session files: {error}"),
    }
}

/// Sessions of two to some ten items of one theme, with an item of another now and then; popularity is skewed.
fn made_up(interactions: usize) -> Vec<Interaction> {
    let mut state = 7u64;
    let mut random = move |below: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let names: Vec<Arc<str>> = (0..20_000).map(|n| format!("item-{n:05}").into()).collect();
    let mut made = Vec::with_capacity(interactions);
    let mut session = 0;
    while made.len() < interactions {
        let theme = random(200);
        let longest = random(16);
        for step in 0..2 + random(1 + longest) {
            let theme = if random(10) == 0 { random(200) } else { theme };
            let rank = random(100);
            let item = theme * 100 + random(1 + rank);
            made.push(Interaction {
                session,
                item: Arc::clone(&names[item as usize]),
                at: (session * 1_000 + step) as i64,
            });
        }
        session += 1;
    }
    made.truncate(interactions);
    made
}

fn report(name: &str, train: &[Interaction], asked: &[Interaction]) {
    let input = train.to_vec();
    let started = Instant::now();
    let index = SessionIndex::build(input, Tuning::default());
    let built = started.elapsed();
    let questions = questions(&index, asked);
    let plain = Plain::new(&index, train);
    let mut scratch = Scratch::default();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.extend(questions.iter().map(|recent| {
            timed(|| {
                black_box(index.suggest(recent, SUGGESTIONS, &mut scratch, |item| item != recent[0])).len()
            })
        }));
        theirs.extend(
            questions
                .iter()
                .map(|recent| timed(|| black_box(plain.suggest(recent)).len())),
        );
    }
    ours.sort_unstable();
    theirs.sort_unstable();
    let at = |times: &[u64], share: f64| times[((times.len() - 1) as f64 * share) as usize] as f64 / 1e3;
    println!(
        "{name} | {} | {:.0} | {:.1} | {:.1} / {:.1} / {:.1} | {:.1} | {:.2}",
        train.len(),
        built.as_secs_f64() * 1e3,
        index.size_bytes() as f64 / train.len() as f64,
        at(&ours, 0.5),
        at(&ours, 0.9),
        at(&ours, 0.99),
        at(&theirs, 0.5),
        at(&ours, 0.5) / at(&theirs, 0.5),
    );
}

fn timed(work: impl FnOnce() -> usize) -> u64 {
    let started = Instant::now();
    black_box(work());
    started.elapsed().as_nanos() as u64
}

/// The latest items of each session, as it grows.
fn questions(index: &SessionIndex, asked: &[Interaction]) -> Vec<Vec<u32>> {
    let mut asked = asked.to_vec();
    asked.sort_by_key(|one| (one.session, one.at));
    let mut questions = Vec::new();
    for session in asked.chunk_by(|a, b| a.session == b.session) {
        for end in 1..session.len() {
            let mut recent: Vec<u32> = Vec::new();
            for item in session[..end]
                .iter()
                .rev()
                .filter_map(|one| index.find(&one.item))
            {
                if recent.len() < MAX_RECENT && !recent.contains(&item) {
                    recent.push(item);
                }
            }
            if !recent.is_empty() {
                questions.push(recent);
            }
        }
    }
    questions
}

/// The same method as one would write it first.
struct Plain {
    /// By item, the most recent first.
    postings: HashMap<u32, Vec<u32>>,
    sessions: Vec<Vec<u32>>,
    tuning: Tuning,
}

impl Plain {
    fn new(index: &SessionIndex, train: &[Interaction]) -> Self {
        let mut train = train.to_vec();
        train.sort_by_key(|one| (one.session, one.at));
        let mut sessions: Vec<&[Interaction]> = train.chunk_by(|a, b| a.session == b.session).collect();
        sessions.sort_by_key(|session| session.last().map(|last| last.at));
        let sessions: Vec<Vec<u32>> = sessions
            .iter()
            .map(|session| {
                let mut items: Vec<u32> = session.iter().filter_map(|one| index.find(&one.item)).collect();
                items.sort_unstable();
                items.dedup();
                items
            })
            .collect();
        let mut postings: HashMap<u32, Vec<u32>> = HashMap::new();
        for (number, session) in sessions.iter().enumerate().rev() {
            for item in session {
                postings.entry(*item).or_default().push(number as u32);
            }
        }
        Plain {
            postings,
            sessions,
            tuning: Tuning::default(),
        }
    }

    fn suggest(&self, recent: &[u32]) -> Vec<(u32, f32)> {
        let mut similar: HashMap<u32, f32> = HashMap::new();
        for (place, item) in recent.iter().enumerate() {
            let sessions = self.postings.get(item).into_iter().flatten();
            for session in sessions.take(self.tuning.sample) {
                *similar.entry(*session).or_default() += self.tuning.decay.powi(place as i32);
            }
        }
        let mut similar: Vec<(u32, f32)> = similar.into_iter().collect();
        similar.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(b.0.cmp(&a.0)));
        similar.truncate(self.tuning.neighbours);
        let mut scores: HashMap<u32, f32> = HashMap::new();
        for (session, similarity) in similar {
            for item in &self.sessions[session as usize] {
                *scores.entry(*item).or_default() += similarity;
            }
        }
        let mut scores: Vec<(u32, f32)> = scores
            .into_iter()
            .filter(|(item, _)| *item != recent[0])
            .collect();
        scores.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        scores.truncate(SUGGESTIONS);
        scores
    }
}
