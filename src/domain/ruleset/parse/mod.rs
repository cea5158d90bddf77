//! From the YAML tree to the model, collecting every problem on the way.
//!
//! Nothing stops at the first problem: what is wrong is reported and left out, and the rest is still checked.
//! A ruleset is made only if no problem was found.

mod experience;
mod placement;
mod schedule;
mod value;

use std::sync::Arc;

use chrono_tz::Tz;

use self::value::Table;
use super::conditions::{Conditions, Scope};
use super::model::{ConditionId, Experience, Group, Placement, PlacementKind, Segment, Slot};
use super::yaml::{self, Mark, Node, Value};
use super::{ByName, MAX_BYTES, Problem, Ruleset, RulesetErrors};
use crate::domain::money::minor_digits;

/// Beyond this a person fixes what is there first.
const MAX_PROBLEMS: usize = 100;

pub(super) fn parse(source: &str, version: u64) -> Result<Ruleset, RulesetErrors> {
    let start = Mark { line: 1, column: 1 };
    let mut problems = Problems::default();
    if source.len() > MAX_BYTES {
        problems.add(
            start,
            "",
            format!("{} bytes, more than {MAX_BYTES}", source.len()),
        );
        return Err(problems.finish());
    }
    let root = match yaml::read(source) {
        Ok(root) => root,
        Err(error) => {
            problems.add(error.at, "", error.reason);
            return Err(problems.finish());
        }
    };
    let mut reader = Reader {
        problems,
        conditions: Conditions::default(),
        groups: Vec::new(),
        time_zone: Tz::default(),
        minor_units: 100.0,
    };
    let ruleset = reader.ruleset(&root, version);
    match ruleset {
        Some(ruleset) if reader.problems.list.is_empty() => Ok(ruleset),
        _ => Err(reader.problems.finish()),
    }
}

#[derive(Default)]
pub(super) struct Problems {
    list: Vec<Problem>,
}

impl Problems {
    pub(super) fn add(&mut self, at: Mark, path: &str, reason: impl Into<String>) {
        if self.list.len() < MAX_PROBLEMS {
            self.list.push(Problem {
                line: at.line,
                column: at.column,
                path: path.to_owned(),
                reason: reason.into(),
            });
        }
    }

    fn finish(mut self) -> RulesetErrors {
        self.list.sort_by_key(|problem| (problem.line, problem.column));
        RulesetErrors { problems: self.list }
    }
}

struct Reader {
    problems: Problems,
    conditions: Conditions,
    groups: Vec<Group>,
    /// In which schedules are written.
    time_zone: Tz,
    /// Minor units in one major unit of the currency.
    minor_units: f64,
}

impl Reader {
    fn ruleset(&mut self, root: &Node, version: u64) -> Option<Ruleset> {
        const FIELDS: &[&str] = &[
            "version",
            "currency",
            "time_zone",
            "holdout",
            "placements",
            "segments",
            "experiences",
        ];
        let table = self.table(root, String::new(), FIELDS)?;
        if let Some(node) = self.required(&table, "version")
            && !matches!(node.value, Value::Int(1))
        {
            self.problems
                .add(node.at, "version", "this build reads version 1 of the format");
        }
        let currency = self
            .required(&table, "currency")
            .and_then(|node| self.currency(node));
        if let Some(node) = table.get("time_zone") {
            self.time_zone = self.zone(node, "time_zone").unwrap_or_default();
        }
        if let Some(currency) = &currency {
            self.minor_units = 10f64.powi(minor_digits(currency) as i32);
        }
        let holdout = self.percent(&table, "holdout", 0.0, 0.0, 50.0);
        let segments = self.segments(&table);
        for segment in &segments {
            self.conditions.declare_segment(&segment.name);
        }
        let mut placements = self.placements(&table);
        let by_name: ByName = placements
            .iter()
            .enumerate()
            .map(|(index, p)| (Arc::clone(&p.name), index))
            .collect();
        let experiences = self.experiences(&table, &placements, &by_name);
        index(&mut placements, &experiences, &self.conditions);
        let conditions = std::mem::take(&mut self.conditions);
        let segment_reads = conditions.reads(Some(Scope::Segment));
        let mut reads = conditions.reads(None);
        // A recommendation starts from the cart.
        reads.cart |= placements
            .iter()
            .any(|p| matches!(p.kind, PlacementKind::Recommendation { .. }));
        let currency = currency?;
        Some(Ruleset {
            version,
            minor_units: self.minor_units,
            currency,
            placements,
            by_name,
            segments,
            groups: std::mem::take(&mut self.groups),
            holdout,
            has_experiments: experiences.iter().any(Experience::is_experiment),
            experiences,
            conditions: conditions.into_list(),
            segment_reads,
            reads,
        })
    }

    fn segments(&mut self, table: &Table<'_>) -> Vec<Segment> {
        let Some(node) = table.get("segments") else {
            return Vec::new();
        };
        let mut segments = Vec::new();
        for (key, node) in self.entries(node, "segments") {
            let path = format!("segments.{}", key.text);
            let name = self.name(&key.text, key.at, &path);
            let Some(table) = self.table(node, path, &["when"]) else {
                continue;
            };
            if self.required(&table, "when").is_none() {
                continue;
            }
            let when = self.when(&table, Scope::Segment);
            if let (Some(name), Some(when)) = (name, when) {
                segments.push(Segment { name, when });
            }
        }
        segments
    }

    fn when(&mut self, table: &Table<'_>, scope: Scope) -> Option<ConditionId> {
        let node = table.get("when")?;
        self.conditions
            .add(node, &table.path("when"), scope, &mut self.problems)
    }

    fn currency(&mut self, node: &Node) -> Option<Arc<str>> {
        match &node.value {
            Value::Text { text, .. } if text.len() == 3 && text.bytes().all(|b| b.is_ascii_uppercase()) => {
                Some(text.as_str().into())
            }
            _ => {
                self.problems
                    .add(node.at, "currency", "expected three capital letters, such as GBP");
                None
            }
        }
    }
}

/// Lists each placement's experiences in the order in which they are tried.
fn index(placements: &mut [Placement], experiences: &[Experience], conditions: &Conditions) {
    for (at, experience) in experiences.iter().enumerate() {
        let Some(placement) = placements.get_mut(experience.placement) else {
            continue;
        };
        placement.experiences.push(Slot {
            experience: at as u32,
            when: experience.when,
        });
        placement.reads_profile |= experience.cap.is_some()
            || experience.is_experiment()
            || experience.when.is_some_and(|when| conditions.uses_profile(when));
    }
    for placement in placements {
        // Stable, so that equal priorities keep the order of the file.
        placement.experiences.sort_by_key(|slot| {
            std::cmp::Reverse(
                experiences
                    .get(slot.experience as usize)
                    .map_or(0, |e| e.priority),
            )
        });
    }
}
