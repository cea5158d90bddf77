//! When, and for how many: schedules, traffic, holdouts, groups, bandits and goals.

use std::sync::Arc;

use chrono::{LocalResult, NaiveDate, NaiveDateTime, TimeZone as _};
use chrono_tz::Tz;

use super::Reader;
use super::value::Table;
use crate::domain::ids::Timestamp;
use crate::domain::ruleset::model::{Bandit, Goal, Group, PlacementKind, Schedule, Variant};
use crate::domain::ruleset::yaml::{Node, Value};
use crate::domain::time::parse_rfc3339;

const DAY_MS: i64 = 86_400_000;

/// What an experiment counts where it does not say.
const DEFAULT_GOAL: &str = "Order Completed";
const DEFAULT_WINDOW_DAYS: f64 = 7.0;

impl Reader {
    /// A share in percent, as 0 to 1.
    pub(super) fn percent(
        &mut self,
        table: &Table<'_>,
        field: &str,
        default: f64,
        least: f64,
        most: f64,
    ) -> f64 {
        let given = table
            .get(field)
            .and_then(|node| self.number(node, &table.path(field), least, most));
        given.unwrap_or(default) / 100.0
    }

    pub(super) fn flag(&mut self, table: &Table<'_>, field: &str) -> bool {
        match table.get(field).map(|node| (node, &node.value)) {
            None => false,
            Some((_, Value::Bool(value))) => *value,
            Some((node, other)) => {
                let reason = format!("expected true or false, found {}", other.kind());
                self.problems.add(node.at, &table.path(field), reason);
                false
            }
        }
    }

    pub(super) fn zone(&mut self, node: &Node, path: &str) -> Option<Tz> {
        let zone = match &node.value {
            Value::Text { text, .. } => text.parse().ok(),
            _ => None,
        };
        if zone.is_none() {
            let reason = "expected the IANA name of a time zone, such as Europe/London";
            self.problems.add(node.at, path, reason);
        }
        zone
    }

    pub(super) fn schedule(&mut self, table: &Table<'_>) -> Schedule {
        let zone = match table.get("time_zone") {
            Some(node) => self.zone(node, &table.path("time_zone")).unwrap_or_default(),
            None => self.time_zone,
        };
        let [from, until] = ["from", "until"].map(|field| self.instant(table, field, zone));
        if let (Some(from), Some(until), Some(node)) = (from, until, table.get("until"))
            && until <= from
        {
            let reason = "is not after `from`";
            self.problems.add(node.at, &table.path("until"), reason);
        }
        Schedule { from, until }
    }

    fn instant(&mut self, table: &Table<'_>, field: &str, zone: Tz) -> Option<Timestamp> {
        let node = table.get(field)?;
        let read = match &node.value {
            Value::Text { text, .. } => instant(text, zone),
            _ => Err(FORM.to_owned()),
        };
        read.map_err(|reason| self.problems.add(node.at, &table.path(field), reason))
            .ok()
    }

    /// The group of the experience at `index`, made where it is the first of it.
    pub(super) fn group(&mut self, table: &Table<'_>, index: usize) -> Option<u32> {
        let node = table.get("group")?;
        let name = self.named(node, &table.path("group"))?;
        let known = self.groups.iter().position(|group| group.name == name);
        let at = known.unwrap_or_else(|| {
            self.groups.push(Group {
                name,
                members: Vec::new(),
            });
            self.groups.len() - 1
        });
        let (member, group) = (u32::try_from(index).ok()?, u32::try_from(at).ok()?);
        if let Some(group) = self.groups.get_mut(at) {
            group.members.push(member);
        }
        Some(group)
    }

    pub(super) fn bandit(
        &mut self,
        node: &Node,
        path: String,
        kind: &PlacementKind,
        variants: &[Variant],
    ) -> Option<Bandit> {
        let table = self.table(node, path, &["explore", "half_life_days"])?;
        if !matches!(kind, PlacementKind::Content { .. }) {
            let reason = format!("a placement of kind {} has no `bandit`", kind.as_str());
            self.problems.add(node.at, &table.path, reason);
        }
        if variants.len() < 2 {
            let reason = "needs two `variants` or more to choose from";
            self.problems.add(node.at, &table.path, reason);
        }
        let half_life = table.get("half_life_days");
        let half_life = half_life.map(|node| self.number(node, &table.path("half_life_days"), 1.0, 3650.0));
        Some(Bandit {
            explore: self.percent(&table, "explore", 10.0, 1.0, 100.0),
            half_life_days: half_life.flatten().unwrap_or(14.0),
        })
    }

    pub(super) fn goal(&mut self, table: &Table<'_>) -> Goal {
        let read = table.get("goal").and_then(|node| {
            let table = self.table(node, table.path("goal"), &["event", "within_days"])?;
            let event = table
                .get("event")
                .and_then(|node| self.text(node, &table.path("event")));
            let days = table
                .get("within_days")
                .and_then(|node| self.number(node, &table.path("within_days"), 0.01, 365.0));
            Some((event, days))
        });
        let (event, days) = read.unwrap_or_default();
        Goal {
            event: event.unwrap_or_else(|| Arc::from(DEFAULT_GOAL)),
            window_ms: (days.unwrap_or(DEFAULT_WINDOW_DAYS) * DAY_MS as f64) as i64,
        }
    }
}

const FORM: &str = "expected a day or a time such as 2026-11-27, 2026-11-27T09:30 or 2026-11-27T09:30:00Z";

/// A local time that occurs twice, when clocks go back, is the first of the two.
fn instant(text: &str, zone: Tz) -> Result<Timestamp, String> {
    if let Some(instant) = parse_rfc3339(text) {
        return Ok(instant);
    }
    let local = ["%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"]
        .iter()
        .find_map(|form| NaiveDateTime::parse_from_str(text, form).ok())
        .or_else(|| {
            let day = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
            day.and_hms_opt(0, 0, 0)
        })
        .ok_or(FORM)?;
    match zone.from_local_datetime(&local) {
        LocalResult::Single(at) | LocalResult::Ambiguous(at, _) => Ok(Timestamp(at.timestamp_millis())),
        LocalResult::None => Err(format!(
            "{text} does not exist in {zone}: clocks go forward over it"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_local_time_is_read_in_its_zone_across_changes_of_the_clock() {
        let zone: Tz = "Europe/London".parse().unwrap();
        let utc = |text| parse_rfc3339(text).unwrap();
        for (local, expected) in [
            ("2026-01-15T09:30", "2026-01-15T09:30:00Z"),
            ("2026-07-15T09:30", "2026-07-15T08:30:00Z"),
            ("2026-07-15 09:30", "2026-07-15T08:30:00Z"),
            ("2026-07-15", "2026-07-14T23:00:00Z"),
            // Twice: the first.
            ("2026-10-25T01:30", "2026-10-25T00:30:00Z"),
            ("2026-07-15T09:30:00+02:00", "2026-07-15T07:30:00Z"),
        ] {
            assert_eq!(instant(local, zone), Ok(utc(expected)), "{local}");
        }
        let skipped = instant("2026-03-29T01:30", zone).unwrap_err();
        assert!(skipped.contains("does not exist in Europe/London"), "{skipped}");
        assert!(instant("next friday", zone).is_err());
    }
}
