//! `docs/ruleset.schema.json` knows the fields that the parser knows, and no others.

use std::collections::BTreeSet;

use cartwright::domain::ruleset::Ruleset;
use serde_json::Value;

/// A ruleset with every table in it, each with the field `surplus`, in the order of [`TABLES`].
const SURPLUS: &str = "
version: 1
currency: GBP
placements:
  promo: {kind: content, fallback: 1, surplus: 1}
  pay: {kind: ranking, by: payment_method, candidates: [card, {id: cash, surplus: 1}], surplus: 1}
  upsell: {kind: recommendation, fallback: [mug], price: {min: 1, surplus: 1}, surplus: 1}
segments:
  vip: {when: profile.orders > 1, surplus: 1}
experiences:
  - id: x
    placement: promo
    surplus: 1
    cap: {per: day, count: 1, surplus: 1}
    bandit: {explore: 10, surplus: 1}
    goal: {event: Order Completed, surplus: 1}
    variants: [{id: a, payload: 1, surplus: 1}, {id: b, payload: 2}]
surplus: 1
";

/// What the schema calls each table, by the path that the parser reports.
const TABLES: &[(&str, &str)] = &[
    ("", ""),
    ("placements.promo", "content"),
    ("placements.pay", "ranking"),
    ("placements.pay.candidates[1]", "candidate"),
    ("placements.upsell", "recommendation"),
    ("placements.upsell.price", "price"),
    ("segments.vip", "segment"),
    ("experiences[0]", "experience"),
    ("experiences[0].cap", "cap"),
    ("experiences[0].bandit", "bandit"),
    ("experiences[0].goal", "goal"),
    ("experiences[0].variants[0]", "variant"),
];

#[test]
fn the_published_schema_has_the_fields_of_the_parser() {
    let schema: Value = serde_json::from_str(include_str!("../../docs/ruleset.schema.json")).unwrap();
    let problems = Ruleset::parse(SURPLUS, 1).unwrap_err().problems;
    let mut seen = BTreeSet::new();
    for problem in &problems {
        let known = problem.reason.strip_prefix("unknown field `surplus`; known are ");
        let known = known.unwrap_or_else(|| panic!("{problem}"));
        let known: BTreeSet<&str> = known.split(", ").collect();
        let table = TABLES.iter().find(|(path, _)| *path == problem.path);
        let (_, table) = table.unwrap_or_else(|| panic!("{problem}"));
        let declared = match *table {
            "" => &schema,
            table => &schema["$defs"][table],
        };
        let fields: BTreeSet<&str> = declared["properties"]
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        assert_eq!(fields, known, "{table}");
        assert_eq!(declared["additionalProperties"], false, "{table}");
        let required = declared["required"].as_array().into_iter().flatten();
        for name in required {
            assert!(known.contains(name.as_str().unwrap()), "{table}");
        }
        seen.insert(*table);
    }
    assert_eq!(seen.len(), TABLES.len(), "{problems:#?}");
}
