//! From interactions to the index.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::FixedState;

use super::{Interaction, Lists, MAX_SESSION_ITEMS, SessionIndex, Tuning};

/// More interactions than 32-bit places can hold are not taken; the most recent sessions count.
const MAX_INTERACTIONS: usize = u32::MAX as usize / 2;

impl SessionIndex {
    /// Builds the index; the order of `interactions` matters only between equal times of one session.
    ///
    /// Sessions of a single item are left out: they have nothing to suggest.
    pub fn build(mut interactions: Vec<Interaction>, tuning: Tuning) -> SessionIndex {
        interactions.sort_by_key(|interaction| (interaction.session, interaction.at));
        let mut sessions: Vec<&[Interaction]> = interactions
            .chunk_by(|a, b| a.session == b.session)
            .filter(|session| session.iter().any(|other| other.item != session[0].item))
            .collect();
        // The oldest first; at equal times the number decides, so that every node numbers alike.
        sessions.sort_by_key(|session| session.last().map(|last| (last.at, last.session)));
        let mut room = MAX_INTERACTIONS;
        let surplus = sessions
            .iter()
            .rposition(|session| {
                let fits = room.checked_sub(session.len());
                room = fits.unwrap_or(0);
                fits.is_none()
            })
            .map_or(0, |at| at + 1);
        let sessions: Vec<Vec<&Arc<str>>> = sessions.split_off(surplus).into_iter().map(distinct).collect();
        Self::index(&sessions, tuning)
    }

    fn index(sessions: &[Vec<&Arc<str>>], tuning: Tuning) -> SessionIndex {
        let mut counts: HashMap<&Arc<str>, u32, FixedState> = HashMap::default();
        for item in sessions.iter().flatten() {
            *counts.entry(item).or_default() += 1;
        }
        let mut counts: Vec<(&Arc<str>, u32)> = counts.into_iter().collect();
        counts.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0)));
        let items: Vec<Arc<str>> = counts.iter().map(|(item, _)| Arc::clone(item)).collect();
        let numbers: HashMap<Arc<str>, u32, FixedState> = items.iter().cloned().zip(0u32..).collect();
        let rarity = counts
            .iter()
            .map(|(_, count)| {
                let frequency = (sessions.len() as f32 / *count as f32).ln();
                frequency.powf(tuning.rarity)
            })
            .collect();

        let mut lists = Lists::default();
        let mut sessions_of: Vec<Vec<u32>> = vec![Vec::new(); items.len()];
        for (number, session) in (0u32..).zip(sessions) {
            let session = session.iter().filter_map(|item| numbers.get(*item).copied());
            lists.push(session.inspect(|item| {
                if let Some(list) = sessions_of.get_mut(*item as usize) {
                    list.push(number);
                }
            }));
        }
        let mut postings = Lists::default();
        for of_item in sessions_of {
            postings.push(of_item.into_iter().rev().take(tuning.sample));
        }
        lists.values.shrink_to_fit();
        postings.values.shrink_to_fit();
        SessionIndex {
            items,
            numbers,
            rarity,
            postings,
            sessions: lists,
            tuning,
            memo: super::memo::Memo::default(),
        }
    }
}

/// The latest distinct items of a session, in order of their last occurrence.
fn distinct(session: &[Interaction]) -> Vec<&Arc<str>> {
    let mut items: Vec<&Arc<str>> = Vec::with_capacity(session.len().min(MAX_SESSION_ITEMS));
    for interaction in session.iter().rev() {
        if items.len() == MAX_SESSION_ITEMS {
            break;
        }
        if !items.contains(&&interaction.item) {
            items.push(&interaction.item);
        }
    }
    items.reverse();
    items
}
