//! Answers made short enough to be read on a terminal.

use std::fmt::Write as _;

use serde_json::Value;

use crate::import::OutgoingEvent;

/// The answer's placements by name.
pub(super) fn placements(answer: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let placements = answer.get("placements").and_then(Value::as_object);
    placements
        .into_iter()
        .flatten()
        .map(|(name, placement)| (name.as_str(), placement))
}

pub(super) fn reasons(answer: &Value) -> impl Iterator<Item = &str> {
    placements(answer).filter_map(|(_, placement)| text(placement, "reason"))
}

/// The placements that differ between two answers.
pub(super) fn changed<'a>(
    before: &'a Value,
    after: &'a Value,
) -> impl Iterator<Item = (&'a str, &'a Value, &'a Value)> {
    placements(after).filter_map(move |(name, placement)| {
        let earlier = before.get("placements")?.get(name)?;
        (earlier != placement).then_some((name, earlier, placement))
    })
}

pub(super) fn difference(before: &Value, after: &Value) -> String {
    let mut text = String::new();
    for (name, earlier, later) in changed(before, after) {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "  {name}\n    before  {}\n    after   {}",
            line(earlier),
            line(later)
        );
    }
    text
}

/// The names of what is recommended, as the history spells them.
pub(super) fn suggested(answer: &Value, history: &[OutgoingEvent]) -> String {
    let mut names = Vec::new();
    let recommended =
        placements(answer).filter(|(_, placement)| text(placement, "reason") == Some("recommended"));
    for (_, placement) in recommended {
        let items = placement.get("items").and_then(Value::as_array);
        for id in items.into_iter().flatten().filter_map(|item| text(item, "id")) {
            let product = format!(r#"{{"sku":"{id}","name":""#);
            let sold = history.iter().find_map(|event| event.json.split_once(&product));
            let name = sold.and_then(|(_, rest)| rest.split('"').next());
            names.push(name.map_or_else(|| id.to_owned(), |name| name.trim().to_lowercase()));
        }
    }
    names.join(", ")
}

fn text<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
    value.get(name).and_then(Value::as_str)
}

/// An answer as a few lines: the segments, and a line for each placement.
pub(super) fn shortened(answer: &Value) -> String {
    let profile = |name: &str| answer.get("profile").and_then(|profile| profile.get(name));
    let segments: Vec<&str> = profile("segments")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let mut text = format!("  {:<18}{}\n", "segments", segments.join(", "));
    for (name, placement) in placements(answer) {
        let _ = writeln!(text, "  {name:<18}{}", line(placement));
    }
    text
}

/// A placement in one line: its items, or its content, and the reason.
fn line(placement: &Value) -> String {
    let what = match placement.get("items").and_then(Value::as_array) {
        Some(items) => {
            let items = items.iter().take(5).map(|item| {
                let id = text(item, "id").unwrap_or("?");
                match item.get("score").and_then(Value::as_f64) {
                    Some(score) => format!("{id} {score:.2}"),
                    None => id.to_owned(),
                }
            });
            items.collect::<Vec<_>>().join(", ")
        }
        None => match (text(placement, "experience"), text(placement, "variant")) {
            (Some(experience), Some(variant)) => format!("{experience} / {variant}"),
            (Some(experience), None) => experience.to_owned(),
            _ => placement.get("payload").map(Value::to_string).unwrap_or_default(),
        },
    };
    format!("{what}  ({})", text(placement, "reason").unwrap_or("no reason"))
}
