//! Experiences, their variants and caps.

use std::collections::HashMap;
use std::sync::Arc;

use super::Reader;
use super::value::Table;
use crate::domain::ruleset::conditions::Scope;
use crate::domain::ruleset::model::{
    Arrangement, Candidate, CapPeriod, Experience, FrequencyCap, Placement, PlacementKind, Variant,
    VariantEffect,
};
use crate::domain::ruleset::yaml::{Node, Value};
use crate::domain::ruleset::{ByName, MAX_EXPERIENCES};

impl Reader {
    pub(super) fn experiences(
        &mut self,
        table: &Table<'_>,
        placements: &[Placement],
        by_name: &ByName,
    ) -> Vec<Experience> {
        let Some(node) = table.get("experiences") else {
            return Vec::new();
        };
        let Value::List(nodes) = &node.value else {
            self.problems.add(
                node.at,
                "experiences",
                format!("expected a list, found {}", node.value.kind()),
            );
            return Vec::new();
        };
        if nodes.len() > MAX_EXPERIENCES {
            let reason = format!("{} experiences, more than {MAX_EXPERIENCES}", nodes.len());
            self.problems.add(node.at, "experiences", reason);
            return Vec::new();
        }
        let mut experiences = Vec::with_capacity(nodes.len());
        let mut lines: HashMap<Arc<str>, usize> = HashMap::new();
        for (index, node) in nodes.iter().enumerate() {
            let Some(experience) = self.experience(node, index, placements, by_name) else {
                continue;
            };
            if let Some(line) = lines.insert(Arc::clone(&experience.id), node.at.line) {
                let reason = format!(
                    "`{}` is the id of the experience in line {line} already",
                    experience.id
                );
                self.problems
                    .add(node.at, &format!("experiences[{index}].id"), reason);
            }
            experiences.push(experience);
        }
        experiences
    }

    pub(super) fn experience(
        &mut self,
        node: &Node,
        index: usize,
        placements: &[Placement],
        by_name: &ByName,
    ) -> Option<Experience> {
        const FIELDS: &[&str] = &[
            "id",
            "placement",
            "when",
            "priority",
            "cap",
            "from",
            "until",
            "time_zone",
            "group",
            "traffic",
            "holdout",
            "holdout_exempt",
            "bandit",
            "goal",
            "variants",
            "payload",
            "pin",
            "boost",
            "hide",
        ];
        let table = self.table(node, format!("experiences[{index}]"), FIELDS)?;
        let id = self
            .required(&table, "id")
            .and_then(|node| self.named(node, &table.path("id")));
        let when = self.when(&table, Scope::Request);
        let priority = match table.get("priority").map(|node| (node, &node.value)) {
            None => 0,
            Some((_, Value::Int(priority))) => *priority,
            Some((node, other)) => {
                let reason = format!("expected an integer, found {}", other.kind());
                self.problems.add(node.at, &table.path("priority"), reason);
                0
            }
        };
        let cap = table
            .get("cap")
            .and_then(|node| self.cap(node, table.path("cap")));
        let placement = self.required(&table, "placement").and_then(|node| {
            let name = self.named(node, &table.path("placement"))?;
            let found = by_name.get(&name).copied();
            if found.is_none() {
                let reason = format!("there is no placement `{name}`");
                self.problems.add(node.at, &table.path("placement"), reason);
            }
            found
        })?;
        let kind = &placements.get(placement)?.kind;
        let variants = self.variants(&table, kind)?;
        let bandit = table
            .get("bandit")
            .and_then(|node| self.bandit(node, table.path("bandit"), kind, &variants));
        let schedule = self.schedule(&table);
        let traffic = self.percent(&table, "traffic", 100.0, 0.0, 100.0);
        let holdout = self.percent(&table, "holdout", 0.0, 0.0, 90.0);
        let holdout_exempt = self.flag(&table, "holdout_exempt");
        let goal = self.goal(&table);
        let group = self.group(&table, index);
        Some(Experience {
            id: id?,
            placement,
            when,
            priority,
            cap,
            paused: false,
            schedule,
            group,
            traffic,
            holdout,
            holdout_exempt,
            variants,
            bandit,
            goal,
        })
    }

    pub(super) fn variants(&mut self, table: &Table<'_>, kind: &PlacementKind) -> Option<Vec<Variant>> {
        let Some(list) = table.get("variants") else {
            let effect = self.effect(table, kind, true)?;
            return Some(vec![Variant {
                id: None,
                weight: 1.0,
                effect,
            }]);
        };
        for field in ["payload", "pin", "boost", "hide"] {
            if let Some(node) = table.get(field) {
                self.problems
                    .add(node.at, &table.path(field), "belongs into each of the `variants`");
            }
        }
        let path = table.path("variants");
        let mut variants: Vec<Variant> = Vec::new();
        for (index, node) in self.list(list, &path).iter().enumerate() {
            const FIELDS: &[&str] = &["id", "weight", "payload", "pin", "boost", "hide"];
            let Some(table) = self.table(node, format!("{path}[{index}]"), FIELDS) else {
                continue;
            };
            let id = self
                .required(&table, "id")
                .and_then(|node| self.named(node, &table.path("id")));
            let weight = match table.get("weight") {
                Some(node) => self.number(node, &table.path("weight"), 0.0, 1e6),
                None => Some(1.0),
            };
            let effect = self.effect(&table, kind, false);
            let (Some(id), Some(weight), Some(effect)) = (id, weight, effect) else {
                continue;
            };
            if variants.iter().any(|variant| variant.id.as_ref() == Some(&id)) {
                self.problems
                    .add(node.at, &table.path("id"), format!("`{id}` is a variant already"));
            }
            variants.push(Variant {
                id: Some(id),
                weight,
                effect,
            });
        }
        if variants.iter().all(|variant| variant.weight == 0.0) {
            self.problems.add(
                list.at,
                &path,
                "at least one variant with a weight above 0 is needed",
            );
        }
        Some(variants)
    }

    /// What a variant does. `alone` is the experience itself, where an arrangement of nothing is an oversight; in
    /// an experiment it is the control.
    pub(super) fn effect(
        &mut self,
        table: &Table<'_>,
        kind: &PlacementKind,
        alone: bool,
    ) -> Option<VariantEffect> {
        let is_content = matches!(kind, PlacementKind::Content { .. });
        let foreign: &[&str] = if is_content {
            &["pin", "boost", "hide"]
        } else {
            &["payload"]
        };
        for field in foreign {
            if let Some(node) = table.get(field) {
                let reason = format!("a placement of kind {} has no `{field}`", kind.as_str());
                self.problems.add(node.at, &table.path(field), reason);
            }
        }
        if is_content {
            let node = self.required(table, "payload")?;
            return Some(VariantEffect::Payload(
                self.payload(node, &table.path("payload"))?,
            ));
        }
        let pin = table
            .get("pin")
            .map_or_else(Vec::new, |node| self.texts(node, &table.path("pin")));
        let hide = table
            .get("hide")
            .map_or_else(Vec::new, |node| self.texts(node, &table.path("hide")));
        let boost = table
            .get("boost")
            .map_or_else(Vec::new, |node| self.boosts(node, &table.path("boost")));
        if alone && pin.is_empty() && hide.is_empty() && boost.is_empty() {
            self.problems.add(
                table.at,
                &table.path,
                "`pin`, `boost`, `hide` or `variants` is missing",
            );
        }
        if let PlacementKind::Ranking { candidates, .. } = kind {
            let lists = [("pin", &pin), ("hide", &hide)]
                .into_iter()
                .flat_map(|(f, l)| l.iter().map(move |n| (f, n)));
            for (field, name) in lists.chain(boost.iter().map(|(name, _)| ("boost", name))) {
                if !candidates.iter().any(|candidate| candidate.id == *name) {
                    let at = table.get(field).map_or(table.at, |node| node.at);
                    self.problems
                        .add(at, &table.path(field), format!("`{name}` is not a candidate"));
                }
            }
            let remains = |c: &Candidate| c.when.is_none() && !hide.contains(&c.id);
            if !hide.is_empty() && !candidates.iter().any(remains) {
                let at = table.get("hide").map_or(table.at, |node| node.at);
                let reason = "hides every candidate that has no condition, so that nothing might be left";
                self.problems.add(at, &table.path("hide"), reason);
            }
        }
        Some(VariantEffect::Arrange(Arrangement { pin, boost, hide }))
    }

    pub(super) fn boosts(&mut self, node: &Node, path: &str) -> Vec<(Arc<str>, f64)> {
        let mut boosts = Vec::new();
        for (key, node) in self.entries(node, path) {
            let path = format!("{path}.{}", key.text);
            let name = self.bounded(&key.text, key.at, &path);
            if let (Some(name), Some(factor)) = (name, self.number(node, &path, 0.001, 1000.0)) {
                boosts.push((name, factor));
            }
        }
        boosts
    }

    pub(super) fn cap(&mut self, node: &Node, path: String) -> Option<FrequencyCap> {
        let table = self.table(node, path, &["per", "count"])?;
        let per = self.required(&table, "per").and_then(|node| {
            let per = match &node.value {
                Value::Text { text, .. } => match text.as_str() {
                    "session" => Some(CapPeriod::Session),
                    "day" => Some(CapPeriod::Day),
                    "lifetime" => Some(CapPeriod::Lifetime),
                    _ => None,
                },
                _ => None,
            };
            if per.is_none() {
                self.problems
                    .add(node.at, &table.path("per"), "expected session, day or lifetime");
            }
            per
        });
        let count = self.required(&table, "count").and_then(|node| match node.value {
            Value::Int(count @ 1..=1_000_000) => Some(count as u32),
            _ => {
                self.problems.add(
                    node.at,
                    &table.path("count"),
                    "expected an integer from 1 to 1000000",
                );
                None
            }
        });
        Some(FrequencyCap {
            per: per?,
            count: count?,
        })
    }
}
