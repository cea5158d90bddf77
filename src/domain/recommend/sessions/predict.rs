//! From a session to what goes on in it.

use super::{MAX_RECENT, SessionIndex};

/// One past the greatest set of shared items.
const MASKS: usize = 1 << MAX_RECENT;

/// A suggested item.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Suggestion {
    pub item: u32,
    pub score: f32,
    /// Which of the session's items the most similar neighbour with this item shares: a place in `recent`.
    pub because: u8,
}

/// What a prediction works on, kept between predictions so that none allocates.
#[derive(Debug, Default)]
pub struct Scratch {
    /// The sample, the most recent first: session and set of shared items.
    sample: Vec<(u32, u8)>,
    /// By item: the sum so far, 0 while untouched.
    sums: Vec<f32>,
    /// The items touched, each with the place of the shared item that led there first.
    touched: Vec<(u32, u8)>,
    best: Vec<Suggestion>,
}

impl SessionIndex {
    /// The `count` items that best go on from `recent`, the best first: distinct items, the latest first, of which
    /// [`MAX_RECENT`] count. Only items that `keep` admits are suggested: those of the session itself score like others.
    ///
    /// Empty where no session of the past shares an item with this one.
    pub fn suggest<'a>(
        &self,
        recent: &[u32],
        count: usize,
        scratch: &'a mut Scratch,
        keep: impl Fn(u32) -> bool,
    ) -> &'a [Suggestion] {
        let recent = recent.get(..MAX_RECENT).unwrap_or(recent);
        let similarity = self.similarities();
        self.sample(recent, &mut scratch.sample);
        let by_mask = nearest(&scratch.sample, &similarity, self.tuning.neighbours);
        self.add_up(scratch, &similarity, by_mask);
        self.choose(scratch, count, keep);
        &scratch.best
    }

    /// The similarity that each set of shared items stands for.
    fn similarities(&self) -> [f32; MASKS] {
        let mut similarity = [0.0; MASKS];
        for (mask, sum) in similarity.iter_mut().enumerate() {
            for place in (0..MAX_RECENT).filter(|place| mask >> place & 1 == 1) {
                *sum += self.tuning.decay.powi(place as i32);
            }
        }
        similarity
    }

    /// Merges the postings of the recent items, the most recent session first, until the sample is full.
    ///
    /// The heads of the lists are compared without branches: which list is next is as good as random.
    fn sample(&self, recent: &[u32], sample: &mut Vec<(u32, u8)>) {
        sample.clear();
        let mut lists: [&[u32]; MAX_RECENT] = [&[]; MAX_RECENT];
        for (list, item) in lists.iter_mut().zip(recent) {
            *list = self.postings.get(*item);
        }
        // One more than the session's number; 0 behind the end.
        let head = |list: &[u32], at: usize| list.get(at).map_or(0, |session| session + 1);
        let mut at = [0usize; MAX_RECENT];
        let mut heads: [u32; MAX_RECENT] = std::array::from_fn(|place| head(lists[place], 0));
        while sample.len() < self.tuning.sample {
            let newest = heads.iter().copied().max().unwrap_or(0);
            if newest == 0 {
                return;
            }
            let mut mask = 0;
            for place in 0..MAX_RECENT {
                let is_here = heads[place] == newest;
                mask |= u8::from(is_here) << place;
                at[place] += usize::from(is_here);
                heads[place] = head(lists[place], at[place]);
            }
            sample.push((newest - 1, mask));
        }
    }

    /// Adds up what the neighbours say. `take` holds how many of each set of shared items are neighbours.
    fn add_up(&self, scratch: &mut Scratch, similarity: &[f32; MASKS], mut take: [usize; MASKS]) {
        scratch.sums.resize(self.items.len(), 0.0);
        scratch.touched.clear();
        for (session, mask) in &scratch.sample {
            let mask = usize::from(*mask);
            if take[mask % MASKS] == 0 {
                continue;
            }
            take[mask % MASKS] -= 1;
            let place = mask.trailing_zeros();
            let items = self.sessions.get(*session);
            let weight = similarity[mask % MASKS] * (1.0 - place as f32 / 10.0) / (items.len() as f32).sqrt();
            for item in items {
                let Some(sum) = scratch.sums.get_mut(*item as usize) else {
                    continue;
                };
                if *sum == 0.0 {
                    scratch.touched.push((*item, place as u8));
                }
                *sum += weight;
            }
        }
    }

    /// Keeps the best `count` of what was touched, and leaves the sums at zero.
    fn choose(&self, scratch: &mut Scratch, count: usize, keep: impl Fn(u32) -> bool) {
        let best = &mut scratch.best;
        best.clear();
        let is_better =
            |a: &Suggestion, b: &Suggestion| a.score > b.score || (a.score == b.score && a.item < b.item);
        for (item, because) in scratch.touched.drain(..) {
            let Some(sum) = scratch.sums.get_mut(item as usize).map(std::mem::take) else {
                continue;
            };
            let suggestion = Suggestion {
                item,
                score: sum * self.rarity.get(item as usize).copied().unwrap_or(0.0),
                because,
            };
            let is_full = best.len() == count;
            if is_full && !best.last().is_some_and(|last| is_better(&suggestion, last)) {
                continue;
            }
            if !keep(item) {
                continue;
            }
            let at = best.partition_point(|have| is_better(have, &suggestion));
            if is_full {
                best.pop();
            }
            best.insert(at, suggestion);
        }
    }
}

/// How many sessions of each set of shared items are among the `neighbours` most similar ones; of the last set the
/// most recent.
fn nearest(sample: &[(u32, u8)], similarity: &[f32; MASKS], neighbours: usize) -> [usize; MASKS] {
    let mut counts = [0usize; MASKS];
    for (_, mask) in sample {
        counts[usize::from(*mask) % MASKS] += 1;
    }
    if sample.len() <= neighbours {
        return counts;
    }
    let mut order: [usize; MASKS] = std::array::from_fn(|mask| mask);
    order.sort_by(|a, b| similarity[*b].total_cmp(&similarity[*a]));
    let mut left = neighbours;
    for mask in order {
        counts[mask] = counts[mask].min(left);
        left -= counts[mask];
    }
    counts
}
