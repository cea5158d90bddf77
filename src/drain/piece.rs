//! A batch in pieces: what is taken apart to find the record that cannot be stored.

use bytes::Bytes;

use super::quarantine::poisoned;
use crate::domain::transform::Effect;
use crate::warehouse::WarehouseError;

/// A run of effects that one transaction takes on.
pub(super) struct Piece {
    pub(super) effects: Vec<(u64, Effect)>,
    /// One past its last record.
    pub(super) next: u64,
}

impl Piece {
    /// A single event that was already stripped to its quarantine row, or no event at all.
    pub(super) fn is_hopeless(&self) -> bool {
        match &self.effects[..] {
            [] => true,
            [(_, effect)] => effect.quarantine.is_some(),
            _ => false,
        }
    }

    /// Two halves, the later one first (pieces are taken from the end); a single event is stripped instead.
    pub(super) fn split(mut self, error: &WarehouseError) -> Vec<Piece> {
        if let [(_, effect)] = &mut self.effects[..] {
            *effect = poisoned(effect, &error.to_string());
            return vec![self];
        }
        let later = self.effects.split_off(self.effects.len() / 2);
        let boundary = later.first().map_or(self.next, |(offset, _)| *offset);
        vec![
            Piece {
                effects: later,
                next: self.next,
            },
            Piece {
                effects: self.effects,
                next: boundary,
            },
        ]
    }
}

/// The unreadable records with offsets from `first` up to `next`, exclusive.
pub(super) fn within(unreadable: &[(u64, Bytes, String)], first: u64, next: u64) -> &[(u64, Bytes, String)] {
    let start = unreadable.partition_point(|(offset, ..)| *offset < first);
    let end = unreadable.partition_point(|(offset, ..)| *offset < next);
    unreadable.get(start..end).unwrap_or(&[])
}
