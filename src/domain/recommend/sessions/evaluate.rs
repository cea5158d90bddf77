//! How good the suggestions are, measured as Serenade's authors do.

use super::{Interaction, MAX_RECENT, Scratch, SessionIndex};

/// The quality of the first [`Quality::cutoff`] suggestions over all predictions.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Quality {
    pub cutoff: usize,
    /// Next items predicted: one for each interaction of a session but the first.
    pub predictions: usize,
    /// The mean of 1/rank of the next item, 0 where it was not suggested.
    pub mean_reciprocal_rank: f64,
    /// How often the next item was suggested at all.
    pub hit_rate: f64,
    /// Which share of the index's items was suggested at least once.
    pub coverage: f64,
}

/// Walks each session, in order of time, and predicts each item from those before it. The very item that was
/// touched last is never suggested.
pub fn evaluate(index: &SessionIndex, mut sessions: Vec<Interaction>, cutoff: usize) -> Quality {
    sessions.sort_by_key(|interaction| (interaction.session, interaction.at));
    let mut scratch = Scratch::default();
    let mut suggested = vec![false; index.item_count()];
    let mut quality = Quality {
        cutoff,
        ..Quality::default()
    };
    for session in sessions.chunk_by(|a, b| a.session == b.session) {
        for at in 1..session.len() {
            let recent = recent(index, &session[..at]);
            let latest = index.find(&session[at - 1].item);
            let suggestions = index.suggest(&recent, cutoff, &mut scratch, |item| Some(item) != latest);
            quality.predictions += 1;
            let next = index.find(&session[at].item);
            if let Some(place) = suggestions.iter().position(|one| Some(one.item) == next) {
                quality.hit_rate += 1.0;
                quality.mean_reciprocal_rank += 1.0 / (place + 1) as f64;
            }
            for one in suggestions {
                suggested[one.item as usize] = true;
            }
        }
    }
    let predictions = quality.predictions.max(1) as f64;
    quality.hit_rate /= predictions;
    quality.mean_reciprocal_rank /= predictions;
    let covered = suggested.iter().filter(|is| **is).count();
    quality.coverage = covered as f64 / suggested.len().max(1) as f64;
    quality
}

/// The latest distinct items that the index knows, the latest first.
fn recent(index: &SessionIndex, session: &[Interaction]) -> Vec<u32> {
    let mut recent = Vec::with_capacity(MAX_RECENT);
    for item in session.iter().rev().filter_map(|one| index.find(&one.item)) {
        if recent.len() == MAX_RECENT {
            break;
        }
        if !recent.contains(&item) {
            recent.push(item);
        }
    }
    recent
}
