//! The values that a condition saw, for explanations.

use serde_json::{Map, Value, json};

use super::fields::{Facts, Field, ScoreMap, declared, find};
use crate::domain::ids::Timestamp;
use crate::domain::time::format_rfc3339;

/// Entries shown of a list or a map; a profile's longest have some hundreds.
const MOST: usize = 20;

/// Each field that `condition` names, with its value; null where it is absent.
pub fn values_seen(condition: &str, facts: &Facts<'_>) -> Map<String, Value> {
    let named = declared().filter(|(path, _)| is_named(condition, path));
    named
        .filter_map(|(path, _)| Some((path.to_owned(), value(find(path)?, facts))))
        .collect()
}

fn value(field: Field, facts: &Facts<'_>) -> Value {
    let time = |at: Timestamp| Value::from(format_rfc3339(at));
    match field {
        Field::BoolField(field) => field.read(facts).into(),
        Field::IntField(field) => field.read(facts).into(),
        // An amount in another currency is no number, which JSON writes as null.
        Field::DoubleField(field) => json!(field.read(facts)),
        Field::TextField(field) => json!(field.read(facts)),
        Field::TimeField(field) => field.read(facts).map_or(Value::Null, time),
        Field::NowField(field) => time(field.read(facts)),
        Field::ListField(field) => {
            let list = field.read(facts);
            (0..list.len().min(MOST)).filter_map(|at| list.get(at)).collect()
        }
        Field::ScoreField(field) => {
            let scores: ScoreMap<'_> = field.read(facts);
            let keys = (0..scores.len().min(MOST)).filter_map(|at| scores.key(at));
            keys.map(|key| (key.to_owned(), json!(scores.get(key)))).collect()
        }
    }
}

/// Whether `path` occurs in `condition` as a whole, not as the beginning of another name.
fn is_named(condition: &str, path: &str) -> bool {
    let continues = |c: char| c.is_alphanumeric() || c == '_';
    condition.match_indices(path).any(|(at, _)| {
        let before = condition.get(..at).and_then(|text| text.chars().next_back());
        let after = condition
            .get(at + path.len()..)
            .and_then(|text| text.chars().next());
        !before.is_some_and(|c| continues(c) || c == '.') && !after.is_some_and(continues)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ruleset::fields::{ProfileFacts, RequestFacts};

    #[test]
    fn a_condition_shows_the_fields_it_names() {
        let affinities = [("shoes", 0.5), ("hats", 0.25)];
        let segments = ["vip"];
        let facts = Facts {
            now: Timestamp(0),
            profile: ProfileFacts {
                orders: 3,
                categories: affinities.as_slice().into(),
                segments: segments.as_slice().into(),
                ..ProfileFacts::default()
            },
            request: RequestFacts {
                country: Some("DE"),
                ..RequestFacts::default()
            },
        };
        let condition = "profile.orders >= 3 && has(request.country) && 'vip' in profile.segments
            && profile.categories.shoes > 0.1 && now.getHours() < 3 && has(request.device)";
        let seen = Value::Object(values_seen(condition, &facts));
        let expected = json!({
            "profile.orders": 3, "request.country": "DE", "profile.segments": ["vip"],
            "profile.categories": {"shoes": 0.5, "hats": 0.25}, "now": "1970-01-01T00:00:00.000Z", "request.device": null,
        });
        assert_eq!(seen, expected);
        assert!(values_seen("known.now && profile.orders_of == 1", &facts).is_empty());
    }
}
