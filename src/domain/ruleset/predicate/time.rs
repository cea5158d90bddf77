//! Timestamps and durations: their ranges, their texts, and the calendar, all in the proleptic Gregorian
//! calendar and without leap seconds, as CEL has it.
//!
//! A timestamp is nanoseconds since the Unix epoch, from year 1 to year 9999; a duration is nanoseconds in 64
//! bits, some 292 years either way (so has cel-go, and so has the `cel` crate).

use crate::domain::ids::Timestamp;

use super::EvalError;

const NANOS_PER_SECOND: i128 = 1_000_000_000;
const SECONDS_PER_DAY: i64 = 86_400;
/// 0001-01-01T00:00:00Z.
const FIRST: i128 = -62_135_596_800 * NANOS_PER_SECOND;
/// One past 9999-12-31T23:59:59.999999999Z.
const END: i128 = 253_402_300_800 * NANOS_PER_SECOND;
/// From 0001-01-01 to 1970-01-01.
const DAYS_TO_EPOCH: i64 = 719_162;
const DAYS_BEFORE_MONTH: [i64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];

/// Nanoseconds since the epoch, within CEL's range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Instant(i128);

impl Instant {
    fn within_range(nanos: i128) -> Result<Instant, EvalError> {
        if (FIRST..END).contains(&nanos) {
            Ok(Instant(nanos))
        } else {
            Err(EvalError::Overflow)
        }
    }

    pub(super) fn from_fact(timestamp: Timestamp) -> Result<Instant, EvalError> {
        Instant::within_range(i128::from(timestamp.0) * 1_000_000)
    }

    pub(super) fn from_seconds(seconds: i64) -> Result<Instant, EvalError> {
        Instant::within_range(i128::from(seconds) * NANOS_PER_SECOND)
    }

    pub(super) fn add(self, duration: i64) -> Result<Instant, EvalError> {
        Instant::within_range(self.0 + i128::from(duration))
    }

    pub(super) fn subtract(self, duration: i64) -> Result<Instant, EvalError> {
        Instant::within_range(self.0 - i128::from(duration))
    }

    /// The duration from `earlier` to this.
    pub(super) fn since(self, earlier: Instant) -> Result<i64, EvalError> {
        i64::try_from(self.0 - earlier.0).map_err(|_| EvalError::Overflow)
    }

    /// Whole seconds since the epoch, rounded down.
    pub(super) fn seconds(self) -> i64 {
        // The range check keeps this far within 64 bits.
        self.0.div_euclid(NANOS_PER_SECOND) as i64
    }

    /// A part of the date or the time of day, `offset` seconds east of UTC.
    pub(super) fn part(self, part: Part, offset: i32) -> i64 {
        let local = self.seconds() + i64::from(offset);
        let second_of_day = local.rem_euclid(SECONDS_PER_DAY);
        let days = local.div_euclid(SECONDS_PER_DAY);
        match part {
            Part::Milliseconds => (self.0.rem_euclid(NANOS_PER_SECOND) / 1_000_000) as i64,
            Part::Seconds => second_of_day % 60,
            Part::Minutes => second_of_day / 60 % 60,
            Part::Hours => second_of_day / 3600,
            // The epoch was a Thursday; 0 is Sunday.
            Part::DayOfWeek => (days + 4).rem_euclid(7),
            Part::Date => Date::of(days).day_of_month + 1,
            Part::DayOfMonth => Date::of(days).day_of_month,
            Part::DayOfYear => Date::of(days).day_of_year,
            Part::Month => Date::of(days).month,
            Part::FullYear => Date::of(days).year,
        }
    }
}

/// What a timestamp's getter gives. All but `Date` and `FullYear` count from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    FullYear,
    Month,
    DayOfYear,
    DayOfMonth,
    Date,
    DayOfWeek,
    Hours,
    Minutes,
    Seconds,
    Milliseconds,
}

impl Part {
    pub(super) fn named(getter: &str) -> Option<Part> {
        Some(match getter {
            "getFullYear" => Part::FullYear,
            "getMonth" => Part::Month,
            "getDayOfYear" => Part::DayOfYear,
            "getDayOfMonth" => Part::DayOfMonth,
            "getDate" => Part::Date,
            "getDayOfWeek" => Part::DayOfWeek,
            "getHours" => Part::Hours,
            "getMinutes" => Part::Minutes,
            "getSeconds" => Part::Seconds,
            "getMilliseconds" => Part::Milliseconds,
            _ => return None,
        })
    }
}

/// A calendar date; all but the year counted from 0.
struct Date {
    year: i64,
    month: i64,
    day_of_month: i64,
    day_of_year: i64,
}

impl Date {
    /// The date so many days after the epoch. A 400-year cycle has 146,097 days; what is left of it is taken
    /// off in centuries, in four-year spans and in years, each but the last of its kind without a leap day.
    fn of(days_since_epoch: i64) -> Date {
        let days = days_since_epoch + DAYS_TO_EPOCH;
        let cycle = days.div_euclid(146_097);
        let rest = days.rem_euclid(146_097);
        let century = (rest / 36_524).min(3);
        let rest = rest - century * 36_524;
        let span = rest / 1_461;
        let rest = rest - span * 1_461;
        let of_span = (rest / 365).min(3);
        let day_of_year = rest - of_span * 365;
        let year = cycle * 400 + century * 100 + span * 4 + of_span + 1;
        let months = (1..).zip(DAYS_BEFORE_MONTH.iter().skip(1));
        let (month, start) = months
            .map(|(month, days)| (month, days + i64::from(month >= 2 && is_leap(year))))
            .take_while(|(_, start)| *start <= day_of_year)
            .last()
            .unwrap_or((0, 0));
        Date {
            year,
            month,
            day_of_month: day_of_year - start,
            day_of_year,
        }
    }
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

/// Reads RFC 3339, as in `2026-02-28T09:30:00Z` or `2026-02-28T10:30:00.5+01:00`. Digits beyond nanoseconds are
/// dropped. `None` when it is not such a text or no such moment.
pub(super) fn parse_timestamp(text: &str) -> Option<Instant> {
    let bytes = text.as_bytes();
    let number = |from: usize, to: usize| -> Option<i64> {
        let digits = bytes.get(from..to)?;
        digits
            .iter()
            .all(u8::is_ascii_digit)
            .then(|| digits.iter().fold(0, |n, d| n * 10 + i64::from(d - b'0')))
    };
    let separator = |at: usize, allowed: &[u8]| bytes.get(at).is_some_and(|byte| allowed.contains(byte));
    let shape = separator(4, b"-") && separator(7, b"-") && separator(10, b"Tt");
    if !(shape && separator(13, b":") && separator(16, b":")) {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);

    let mut at = 19;
    let mut nanos = 0;
    if separator(at, b".") {
        let digits = bytes
            .get(at + 1..)?
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        let kept = digits.min(9);
        nanos = number(at + 1, at + 1 + kept)?;
        (kept..9).for_each(|_| nanos *= 10);
        if digits == 0 {
            return None;
        }
        at += 1 + digits;
    }
    let offset = if separator(at, b"Zz") && bytes.len() == at + 1 {
        0
    } else {
        let sign = if separator(at, b"+") { 1 } else { -1 };
        if !(separator(at, b"+-") && separator(at + 3, b":") && bytes.len() == at + 6) {
            return None;
        }
        let (hours, minutes) = (number(at + 1, at + 3)?, number(at + 4, at + 6)?);
        if hours > 23 || minutes > 59 {
            return None;
        }
        sign * (hours * 3600 + minutes * 60)
    };

    let leap_day = i64::from(month == 2 && is_leap(year));
    let index = usize::try_from(month - 1).ok()?;
    let before_month = *DAYS_BEFORE_MONTH.get(index)?;
    let month_length = DAYS_BEFORE_MONTH
        .get(index + 1)
        .map_or(31, |next| next - before_month + leap_day);
    if !(1..=month_length).contains(&day) || year < 1 || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let years = year - 1;
    let before_year = years * 365 + years / 4 - years / 100 + years / 400;
    let days = before_year + before_month + i64::from(month > 2 && is_leap(year)) + day - 1 - DAYS_TO_EPOCH;
    let seconds = days * SECONDS_PER_DAY + hour * 3600 + minute * 60 + second - offset;
    Instant::within_range(i128::from(seconds) * NANOS_PER_SECOND + i128::from(nanos)).ok()
}

/// Reads a duration such as `36h`, `-1.5h` or `1h30m`: decimal numbers, each with a unit of `h m s ms us ns`.
/// Fractions of a nanosecond are dropped. `None` when it is not such a text or out of range.
pub(super) fn parse_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let (number, after) = rest.split_at(number_end);
        let unit_end = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_end);
        let unit: i128 = match unit {
            "h" => 3_600 * NANOS_PER_SECOND,
            "m" => 60 * NANOS_PER_SECOND,
            "s" => NANOS_PER_SECOND,
            "ms" => 1_000_000,
            "us" | "µs" => 1_000,
            "ns" => 1,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || whole.len() > 20 {
            return None;
        }
        let digits = |text: &str| {
            text.bytes()
                .fold(0i128, |n, digit| n * 10 + i128::from(digit - b'0'))
        };
        // An hour has less than 10^13 nanoseconds: digits beyond the eighteenth do not matter.
        let fraction = fraction.get(..18).unwrap_or(fraction);
        let scale = (0..fraction.len()).fold(1i128, |n, _| n * 10);
        total = total.checked_add(digits(whole) * unit + digits(fraction) * unit / scale)?;
        rest = next;
    }
    i64::try_from(if negative { -total } else { total }).ok()
}

/// Reads a fixed offset, `+01:00`, `-08:00`, `05:30`, or `UTC`, as seconds east of UTC.
pub(super) fn parse_offset(text: &str) -> Option<i32> {
    if matches!(text, "UTC" | "") {
        return Some(0);
    }
    let (sign, digits) = match text.as_bytes() {
        [b'-', digits @ ..] => (-1, digits),
        [b'+', digits @ ..] => (1, digits),
        digits => (1, digits),
    };
    let [a, b, b':', c, d] = digits else { return None };
    if ![a, b, c, d].iter().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let two = |tens: &u8, ones: &u8| i32::from(tens - b'0') * 10 + i32::from(ones - b'0');
    let (hours, minutes) = (two(a, b), two(c, d));
    (hours <= 23 && minutes <= 59).then_some(sign * (hours * 3600 + minutes * 60))
}
