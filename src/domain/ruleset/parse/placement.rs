//! Placements.

use super::Reader;
use super::value::Table;
use crate::domain::profile::Affinity;
use crate::domain::ruleset::conditions::Scope;
use crate::domain::ruleset::model::{Candidate, ItemRules, Placement, PlacementKind};
use crate::domain::ruleset::yaml::{Node, Value};

impl Reader {
    pub(super) fn placements(&mut self, table: &Table<'_>) -> Vec<Placement> {
        let Some(node) = self.required(table, "placements") else {
            return Vec::new();
        };
        let mut placements = Vec::new();
        for (key, node) in self.entries(node, "placements") {
            let path = format!("placements.{}", key.text);
            let name = self.name(&key.text, key.at, &path);
            let kind = self.placement_kind(node, path);
            if let (Some(name), Some(kind)) = (name, kind) {
                placements.push(Placement {
                    name,
                    kind,
                    experiences: Vec::new(),
                    reads_profile: false,
                });
            }
        }
        if placements.is_empty() && self.problems.list.is_empty() {
            self.problems
                .add(node.at, "placements", "at least one placement is needed");
        }
        placements
    }

    pub(super) fn placement_kind(&mut self, node: &Node, path: String) -> Option<PlacementKind> {
        let kind = match &node.value {
            Value::Map(entries) => entries
                .iter()
                .find(|(key, _)| key.text == "kind")
                .map(|(_, node)| node),
            _ => None,
        };
        let kind = match kind.map(|node| (node, &node.value)) {
            Some((_, Value::Text { text, .. })) => text.as_str(),
            Some((node, _)) => {
                self.problems
                    .add(node.at, &path, "`kind` is content, ranking or recommendation");
                return None;
            }
            None => {
                self.problems.add(
                    node.at,
                    &path,
                    "`kind` is missing: content, ranking or recommendation",
                );
                return None;
            }
        };
        match kind {
            "content" => {
                let table = self.table(node, path, &["kind", "fallback"])?;
                let fallback = self.required(&table, "fallback")?;
                Some(PlacementKind::Content {
                    fallback: self.payload(fallback, &table.path("fallback"))?,
                })
            }
            "ranking" => {
                let table = self.table(node, path, &["kind", "by", "candidates", "limit", "smoothing"])?;
                self.ranking(&table)
            }
            "recommendation" => {
                const FIELDS: &[&str] = &["kind", "limit", "fallback", "exclude", "categories", "price"];
                let table = self.table(node, path, FIELDS)?;
                let limit = self.limit(&table, 10);
                let fallback = self.required(&table, "fallback")?;
                let path = table.path("fallback");
                let items = self.texts(fallback, &path);
                if items.is_empty() {
                    self.problems
                        .add(fallback.at, &path, "at least one item is needed");
                }
                Some(PlacementKind::Recommendation {
                    limit,
                    fallback: items,
                    rules: self.item_rules(&table),
                })
            }
            other => {
                let reason = format!(
                    "unknown kind `{}`: content, ranking or recommendation",
                    other.escape_debug()
                );
                self.problems.add(node.at, &path, reason);
                None
            }
        }
    }

    fn item_rules(&mut self, table: &Table<'_>) -> ItemRules {
        let mut list = |field: &str| {
            let node = table.get(field);
            node.map_or_else(Vec::new, |node| self.texts(node, &table.path(field)))
        };
        let (exclude, categories) = (list("exclude"), list("categories"));
        let price_minor = table.get("price").and_then(|node| {
            let table = self.table(node, table.path("price"), &["min", "max"])?;
            let mut bound = |field: &str| {
                let amount = self.number(table.get(field)?, &table.path(field), 0.0, 1e9)?;
                Some((amount * self.minor_units).round() as i64)
            };
            Some((bound("min").unwrap_or(0), bound("max").unwrap_or(i64::MAX)))
        });
        ItemRules {
            exclude,
            categories,
            price_minor,
        }
    }

    pub(super) fn ranking(&mut self, table: &Table<'_>) -> Option<PlacementKind> {
        let by = self.required(table, "by").and_then(|node| {
            let by = match &node.value {
                Value::Text { text, .. } => match text.as_str() {
                    "payment_method" => Some(Affinity::PaymentMethod),
                    "shipping_method" => Some(Affinity::ShippingMethod),
                    "category" => Some(Affinity::Category),
                    "item" => Some(Affinity::Item),
                    "device" => Some(Affinity::Device),
                    _ => None,
                },
                _ => None,
            };
            if by.is_none() {
                let reason = "expected payment_method, shipping_method, category, item or device";
                self.problems.add(node.at, &table.path("by"), reason);
            }
            by
        });
        let limit = self.limit(table, 20);
        let smoothing = match table.get("smoothing") {
            Some(node) => self.number(node, &table.path("smoothing"), 0.001, 1e6)?,
            None => 2.0,
        };
        let list = self.required(table, "candidates")?;
        let path = table.path("candidates");
        let mut candidates: Vec<Candidate> = Vec::new();
        for (index, node) in self.list(list, &path).iter().enumerate() {
            let path = format!("{path}[{index}]");
            let (id, when) = match &node.value {
                Value::Map(_) => {
                    let Some(table) = self.table(node, path.clone(), &["id", "when"]) else {
                        continue;
                    };
                    let id = self
                        .required(&table, "id")
                        .and_then(|node| self.text(node, &table.path("id")));
                    (id, self.when(&table, Scope::Request))
                }
                _ => (self.text(node, &path), None),
            };
            let Some(id) = id else { continue };
            if candidates.iter().any(|candidate| candidate.id == id) {
                self.problems
                    .add(node.at, &path, format!("`{id}` is a candidate already"));
                continue;
            }
            candidates.push(Candidate { id, when });
        }
        if !candidates.iter().any(|candidate| candidate.when.is_none()) {
            let reason =
                "at least one candidate without a condition is needed, so that there is always an answer";
            self.problems.add(list.at, &path, reason);
        }
        Some(PlacementKind::Ranking {
            by: by?,
            candidates,
            limit,
            smoothing,
        })
    }
}
