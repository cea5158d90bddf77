//! The index against sessions that can be checked by hand, and against the method as it is written down.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;

use super::*;

fn interactions(sessions: &[&[&str]]) -> Vec<Interaction> {
    let each = (0i64..).zip(sessions).flat_map(|(number, items)| {
        (0i64..).zip(*items).map(move |(step, item)| Interaction {
            session: number as u64,
            item: Arc::from(*item),
            at: number * 1_000 + step,
        })
    });
    each.collect()
}

fn build(sessions: &[&[&str]]) -> SessionIndex {
    SessionIndex::build(interactions(sessions), Tuning::default())
}

/// Suggestions by name.
fn suggest(index: &SessionIndex, recent: &[&str], count: usize) -> Vec<(String, f32)> {
    let recent: Vec<u32> = recent.iter().filter_map(|item| index.find(item)).collect();
    let mut scratch = Scratch::default();
    let suggestions = index.suggest(&recent, count, &mut scratch, |item| !recent.contains(&item));
    suggestions
        .iter()
        .map(|one| (index.name(one.item).unwrap().to_owned(), one.score))
        .collect()
}

#[test]
fn what_shared_a_session_is_suggested_and_the_rarer_first() {
    let index = build(&[
        &["tea", "cup"],
        &["tea", "pot", "cup"],
        &["cup", "spoon"],
        &["hat", "scarf"],
    ]);
    let suggested = suggest(&index, &["tea"], 10);
    // Two neighbours share the latest item: 1 · (1 − 0) / √items; cup is in three of four sessions, pot in one.
    let cup = (1.0 / 2f32.sqrt() + 1.0 / 3f32.sqrt()) * (4f32 / 3.0).ln().powi(3);
    let pot = 1.0 / 3f32.sqrt() * 4f32.ln().powi(3);
    assert_eq!(suggested.len(), 2, "{suggested:?}");
    for ((name, score), (expected_name, expected)) in suggested.iter().zip([("pot", pot), ("cup", cup)]) {
        assert_eq!(name, expected_name);
        assert!((score - expected).abs() < 1e-5, "{name}: {score}, {expected}");
    }
}

#[test]
fn the_latest_item_weighs_most_and_the_suggestion_says_where_it_comes_from() {
    let index = build(&[&["a", "x"], &["b", "y"], &["c", "z"]]);
    let recent: Vec<u32> = ["b", "a"].iter().filter_map(|item| index.find(item)).collect();
    let mut scratch = Scratch::default();
    let found = index.suggest(&recent, 5, &mut scratch, |item| !recent.contains(&item));
    let found: Vec<_> = found
        .iter()
        .map(|one| (index.name(one.item).unwrap(), one.because))
        .collect();
    assert_eq!(found, [("y", 0), ("x", 1)]);
}

#[test]
fn nothing_shared_nothing_suggested() {
    let index = build(&[&["a", "b"]]);
    assert_eq!(suggest(&index, &[], 5), []);
    assert_eq!(suggest(&index, &["unknown"], 5), []);
    assert_eq!(suggest(&index, &["a"], 0), []);
    assert_eq!(suggest(&SessionIndex::default(), &["a"], 5), []);
    let mut scratch = Scratch::default();
    assert!(index.suggest(&[7_000], 5, &mut scratch, |_| true).is_empty());
}

#[test]
fn sessions_of_one_item_are_left_out_and_long_ones_cut_to_their_latest_items() {
    let names: Vec<String> = (0..MAX_SESSION_ITEMS * 3).map(|n| format!("item-{n}")).collect();
    let robot: Vec<&str> = names.iter().map(String::as_str).collect();
    let index = build(&[&["a"], &["b", "b"], &robot]);
    assert_eq!(index.session_count(), 1);
    assert_eq!(index.item_count(), MAX_SESSION_ITEMS);
    assert!(index.find("item-0").is_none());
    assert!(index.find(names.last().unwrap()).is_some());
}

#[test]
fn the_most_recent_sessions_are_the_sample() {
    let mut sessions: Vec<Vec<String>> = (0..20)
        .map(|n| vec!["a".to_owned(), format!("old-{n}")])
        .collect();
    sessions.extend((0..5).map(|n| vec!["a".to_owned(), format!("new-{n}")]));
    let borrowed: Vec<Vec<&str>> = sessions
        .iter()
        .map(|s| s.iter().map(String::as_str).collect())
        .collect();
    let slices: Vec<&[&str]> = borrowed.iter().map(Vec::as_slice).collect();
    let tuning = Tuning {
        sample: 5,
        ..Tuning::default()
    };
    let index = SessionIndex::build(interactions(&slices), tuning);
    let suggested = suggest(&index, &["a"], 50);
    assert_eq!(suggested.len(), 5);
    assert!(
        suggested.iter().all(|(name, _)| name.starts_with("new-")),
        "{suggested:?}"
    );
}

/// The names of a made-up session's items.
fn named(items: &[u8]) -> Vec<String> {
    items.iter().map(|item| format!("i{item}")).collect()
}

proptest! {
    #[test]
    fn what_is_recalled_is_what_would_be_suggested(
        sessions in prop::collection::vec(prop::collection::vec(0u8..90, 1..40), 0..40),
        asked in prop::collection::vec((prop::collection::vec(0u8..90, 0..6), 0usize..40, 1u32..9), 1..20),
    ) {
        let sessions: Vec<Vec<String>> = sessions.iter().map(|items| named(items)).collect();
        let sessions: Vec<Vec<&str>> =
            sessions.iter().map(|items| items.iter().map(String::as_str).collect()).collect();
        let slices: Vec<&[&str]> = sessions.iter().map(Vec::as_slice).collect();
        let index = build(&slices);
        let (mut scratch, mut other) = (Scratch::default(), Scratch::default());
        // The second time each is known, under another filter.
        for shift in 0..2 {
            for (recent, count, every) in &asked {
                let recent: Vec<u32> = named(recent).iter().filter_map(|item| index.find(item)).collect();
                let keep = |item: u32| !(item + shift).is_multiple_of(*every) && !recent.contains(&item);
                let expected = index.suggest(&recent, *count, &mut scratch, keep);
                prop_assert_eq!(&*index.recall(&recent, *count, &mut other, keep), expected);
            }
        }
    }
}

/// The method as its description has it, with maps and sorting.
fn by_the_book(sessions: &[Vec<u8>], recent: &[u8], tuning: Tuning) -> BTreeMap<u8, f32> {
    let kept: Vec<BTreeSet<u8>> = sessions
        .iter()
        .map(|session| session.iter().copied().collect::<BTreeSet<u8>>())
        .filter(|session| session.len() > 1)
        .collect();
    let recent = &recent[..recent.len().min(MAX_RECENT)];
    let mut sample: Vec<(usize, f32, usize)> = Vec::new();
    for (number, session) in kept.iter().enumerate().rev() {
        let shared: Vec<usize> = (0..recent.len())
            .filter(|p| session.contains(&recent[*p]))
            .collect();
        if let Some(first) = shared.first().copied()
            && sample.len() < tuning.sample
        {
            let similarity = shared.iter().map(|place| tuning.decay.powi(*place as i32)).sum();
            sample.push((number, similarity, first));
        }
    }
    // Stable: of equally similar ones the most recent.
    sample.sort_by(|a, b| b.1.total_cmp(&a.1));
    sample.truncate(tuning.neighbours);
    let mut scores: BTreeMap<u8, f32> = BTreeMap::new();
    for (number, similarity, first) in sample {
        let session = &kept[number];
        for item in session {
            let holders = kept.iter().filter(|session| session.contains(item)).count();
            let rarity = (kept.len() as f32 / holders as f32).ln().powf(tuning.rarity);
            *scores.entry(*item).or_default() +=
                similarity * (1.0 - first as f32 / 10.0) / (session.len() as f32).sqrt() * rarity;
        }
    }
    scores
}

fn of_bytes(sessions: &[Vec<u8>]) -> Vec<Interaction> {
    let each = (0u64..).zip(sessions).flat_map(|(session, items)| {
        (0i64..).zip(items).map(move |(step, item)| Interaction {
            session,
            item: Arc::from(format!("i{item:02}")),
            at: session as i64 * 100 + step,
        })
    });
    each.collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn suggestions_are_those_of_the_method_whatever_was_asked_before(
        sessions in prop::collection::vec(prop::collection::vec(0u8..16, 1..8), 0..40),
        asked in prop::collection::vec(prop::collection::vec(0u8..16, 0..7), 1..6),
        sample in 1usize..30,
        neighbours in 1usize..30,
    ) {
        let tuning = Tuning { sample, neighbours, ..Tuning::default() };
        let mut input = of_bytes(&sessions);
        let index = SessionIndex::build(input.clone(), tuning);
        input.reverse();
        let reversed = SessionIndex::build(input, tuning);
        let mut scratch = Scratch::default();
        for mut recent in asked {
            let mut seen = BTreeSet::new();
            recent.retain(|item| seen.insert(*item) && index.find(&format!("i{item:02}")).is_some());
            let number = |index: &SessionIndex, item: &u8| index.find(&format!("i{item:02}")).unwrap();
            let numbers: Vec<u32> = recent.iter().map(|item| number(&index, item)).collect();
            let expected = by_the_book(&sessions, &recent, tuning);
            let found = index.suggest(&numbers, 100, &mut scratch, |_| true).to_vec();
            prop_assert_eq!(found.len(), expected.len());
            for (item, score) in &expected {
                let number = number(&index, item);
                let one = found.iter().find(|one| one.item == number).unwrap();
                prop_assert!((one.score - score).abs() <= 1e-4 * score.abs().max(1.0), "{} {}", one.score, score);
            }
            prop_assert!(found.is_sorted_by(|a, b| (b.score, a.item) <= (a.score, b.item)));
            let few = index.suggest(&numbers, 3, &mut scratch, |_| true);
            prop_assert_eq!(few, &found[..found.len().min(3)]);
            let mut fresh = Scratch::default();
            prop_assert_eq!(reversed.suggest(&numbers, 100, &mut fresh, |_| true), &found[..]);
        }
    }
}

#[test]
fn quality_is_measured_by_each_next_item() {
    let index = build(&[&["a", "b"], &["a", "b", "c"], &["x", "y"]]);
    // After a: b, c. After b: a, c (a was touched before, and may come again).
    let quality = evaluate(
        &index,
        interactions(&[&["a", "c"], &["unknown", "a"], &["x", "y"]]),
        20,
    );
    assert_eq!(quality.predictions, 3);
    assert!((quality.hit_rate - 2.0 / 3.0).abs() < 1e-9, "{quality:?}");
    assert!(
        (quality.mean_reciprocal_rank - (1.0 + 1.0) / 3.0).abs() < 1e-9,
        "{quality:?}"
    );
    assert!((quality.coverage - 3.0 / 5.0).abs() < 1e-9, "{quality:?}");
    assert_eq!(evaluate(&index, Vec::new(), 20).hit_rate, 0.0);
}
