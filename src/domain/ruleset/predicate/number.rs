//! Numbers of different types, compared as CEL says: as points on one number line, without loss.

use std::cmp::Ordering;

/// 2^63, exactly.
const TWO_TO_63: f64 = 9_223_372_036_854_775_808.0;
/// 2^64, exactly.
const TWO_TO_64: f64 = 18_446_744_073_709_551_616.0;

#[derive(Debug, Clone, Copy)]
pub(super) enum Number {
    Int(i64),
    Uint(u64),
    Double(f64),
}

/// `None` where either is NaN.
pub(super) fn compare(left: Number, right: Number) -> Option<Ordering> {
    use Number::{Double, Int, Uint};
    match (left, right) {
        (Int(a), Int(b)) => Some(a.cmp(&b)),
        (Uint(a), Uint(b)) => Some(a.cmp(&b)),
        (Double(a), Double(b)) => a.partial_cmp(&b),
        (Int(a), Uint(b)) => Some(i128::from(a).cmp(&i128::from(b))),
        (Uint(a), Int(b)) => Some(i128::from(a).cmp(&i128::from(b))),
        (Int(a), Double(b)) => compare_integer(i128::from(a), b),
        (Uint(a), Double(b)) => compare_integer(i128::from(a), b),
        (Double(a), Int(b)) => compare_integer(i128::from(b), a).map(Ordering::reverse),
        (Double(a), Uint(b)) => compare_integer(i128::from(b), a).map(Ordering::reverse),
    }
}

/// An integer of at most 64 bits against a double: by the whole part, then by what follows the point.
fn compare_integer(integer: i128, double: f64) -> Option<Ordering> {
    if double.is_nan() {
        return None;
    }
    // A cast to i128 saturates far outside the range of `integer`, and is exact within it.
    let whole = double.trunc();
    Some(
        integer
            .cmp(&(whole as i128))
            .then_with(|| whole.partial_cmp(&double).unwrap_or(Ordering::Equal)),
    )
}

/// CEL's `int(double)`: towards zero, an error outside the open range (-2^63, 2^63).
pub(super) fn int_from_double(double: f64) -> Option<i64> {
    (double > -TWO_TO_63 && double < TWO_TO_63).then_some(double as i64)
}

/// CEL's `uint(double)`: towards zero, an error below 0 and from 2^64.
pub(super) fn uint_from_double(double: f64) -> Option<u64> {
    (0.0..TWO_TO_64).contains(&double).then_some(double as u64)
}
