//! Who gets which variant: a stable, published function of the experiment's id and the subject.
//!
//! - **Hash.** MurmurHash3 (x86, 32 bits, seed 0) of `experiment id ‖ NUL ‖ subject ‖ NUL ‖ variant id`, in UTF-8.
//! - **Allocation.** Weighted rendezvous: with `u = (hash + 0.5) / 2^32`, the variant with the least
//!   `-log2(u) / weight` wins; ties go to the one declared first. Each variant gets its share of the weights. If
//!   one weight grows, shoppers move to that variant only; if one shrinks or goes, only its own move.
//! - **Shares.** A shopper is in an experiment's traffic iff `u` of the hash of `experiment id`, subject, `#traffic` is below the
//!   share; kept from it likewise by `#holdout`, and from all experiences by the hash of `#global`, subject, `#holdout`.
//! - **Groups.** Of a group a shopper may see the experience with the least hash of `#group NAME`, subject, `experience id`.
//! - **Subject.** The anonymous id's pseudonym, else the user's, in its stored form (`a:…`, `u:…`). A stored
//!   assignment goes before all of this, so that a login or a new weight changes nothing for those who saw one.
//! - The logarithm is our own, made of IEEE additions, multiplications and divisions alone: libraries differ in
//!   the last digit, and nodes may not.
//!
//! Changing any of this reshuffles running experiments. [`BUCKETING_VERSION`] would go up, and
//! `docs/ruleset.md` lists test vectors.

use crate::domain::ruleset::Variant;

/// The version of the function described above.
pub const BUCKETING_VERSION: u32 = 1;

/// The hash of one variant for one subject.
pub fn hash(experiment: &str, subject: &str, variant: &str) -> u32 {
    hash_pieces(&[experiment, "\0", subject, "\0", variant])
}

/// The hash of the pieces' concatenation.
pub(super) fn hash_pieces(pieces: &[&str]) -> u32 {
    let mut murmur = Murmur3::default();
    for piece in pieces {
        murmur.write(piece.as_bytes());
    }
    murmur.finish()
}

/// The variant of `subject`, as an index; `None` where no variant has a weight.
pub(super) fn choose(experiment: &str, subject: &str, variants: &[Variant]) -> Option<usize> {
    let mut best: Option<(f64, usize)> = None;
    for (index, variant) in variants.iter().enumerate() {
        if variant.weight <= 0.0 {
            continue;
        }
        let cost = cost(hash(experiment, subject, variant.id.as_deref().unwrap_or(""))) / variant.weight;
        if best.is_none_or(|(least, _)| cost < least) {
            best = Some((cost, index));
        }
    }
    best.map(|(_, index)| index)
}

/// `-log2((hash + 0.5) / 2^32)`, the same to the last bit everywhere.
fn cost(hash: u32) -> f64 {
    // 33 bits: exact in a float, and never 0.
    33.0 - log2(f64::from(hash) * 2.0 + 1.0)
}

/// The logarithm of a positive, normal number.
pub(super) fn log2(number: f64) -> f64 {
    let bits = number.to_bits();
    let exponent = ((bits >> 52) & 0x7ff) as i32 - 1023;
    let mantissa = f64::from_bits((bits & ((1 << 52) - 1)) | (1023 << 52));
    // ln(m) = 2 · atanh((m − 1) / (m + 1)); for m in [1, 2) the argument is below 1/3 and 16 terms reach 1e-16.
    let x = (mantissa - 1.0) / (mantissa + 1.0);
    let square = x * x;
    let mut sum = 0.0;
    for term in (0..16).rev() {
        sum = sum * square + 1.0 / f64::from(2 * term + 1);
    }
    f64::from(exponent) + 2.0 * x * sum * std::f64::consts::LOG2_E
}

/// Whether `subject` is among the `share` (0 to 1) of shoppers that `purpose` of `scope` takes. A greater share takes the same
/// ones and more.
pub(super) fn is_among(share: f64, scope: &str, subject: &str, purpose: &str) -> bool {
    share >= 1.0 || unit(hash(scope, subject, purpose)) < share
}

/// The member of a group that `subject` may see.
pub(super) fn member<'m>(
    group: &str,
    subject: &str,
    members: impl Iterator<Item = (u32, &'m str)>,
) -> Option<u32> {
    members
        .map(|(index, id)| (hash_pieces(&["#group ", group, "\0", subject, "\0", id]), index))
        .min()
        .map(|(_, index)| index)
}

fn unit(hash: u32) -> f64 {
    (f64::from(hash) + 0.5) / 4_294_967_296.0
}

/// MurmurHash3_x86_32 with seed 0, fed piece by piece.
#[derive(Default)]
struct Murmur3 {
    state: u32,
    /// Bytes not yet mixed in, the first in the lowest place.
    tail: u32,
    tail_bytes: u32,
    length: u32,
}

impl Murmur3 {
    fn write(&mut self, bytes: &[u8]) {
        self.length = self.length.wrapping_add(bytes.len() as u32);
        for byte in bytes {
            self.tail |= u32::from(*byte) << (8 * self.tail_bytes);
            self.tail_bytes += 1;
            if self.tail_bytes == 4 {
                self.state = (self.state ^ scramble(self.tail))
                    .rotate_left(13)
                    .wrapping_mul(5)
                    .wrapping_add(0xe654_6b64);
                self.tail = 0;
                self.tail_bytes = 0;
            }
        }
    }

    fn finish(self) -> u32 {
        let mut hash = self.state;
        if self.tail_bytes > 0 {
            hash ^= scramble(self.tail);
        }
        hash ^= self.length;
        hash = (hash ^ (hash >> 16)).wrapping_mul(0x85eb_ca6b);
        hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
        hash ^ (hash >> 16)
    }
}

fn scramble(word: u32) -> u32 {
    word.wrapping_mul(0xcc9e_2d51)
        .rotate_left(15)
        .wrapping_mul(0x1b87_3593)
}
