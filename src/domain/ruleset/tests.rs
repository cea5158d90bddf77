//! What a ruleset may say, and how each mistake is reported.

use proptest::prelude::*;

use super::*;

const EXAMPLE: &str = include_str!("../../../examples/ruleset.yaml");

const HEAD: &str = "version: 1
currency: GBP
placements:
  promo: {kind: content, fallback: null}
  pay:
    kind: ranking
    by: payment_method
    candidates: [card, paypal, {id: klarna, when: request.cart.total > 35.0}]
  upsell: {kind: recommendation, fallback: [mug]}
";

fn problems(source: &str) -> Vec<String> {
    match Ruleset::parse(source, 1) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.lines("r.yaml").collect(),
    }
}

/// The problems of the document that begins with [`HEAD`].
fn problems_after_head(rest: &str) -> Vec<String> {
    problems(&format!("{HEAD}{rest}"))
}

#[test]
fn the_demo_ruleset_parses() {
    let ruleset = Ruleset::parse(EXAMPLE, 7).unwrap_or_else(|errors| {
        panic!(
            "{}",
            errors
                .lines("examples/ruleset.yaml")
                .collect::<Vec<_>>()
                .join("\n")
        );
    });
    assert_eq!((ruleset.version(), ruleset.currency()), (7, "GBP"));
    assert_eq!(ruleset.placements().len(), 4);
    assert_eq!(ruleset.segments().len(), 5);
    assert!(ruleset.has_experiments());
    // Abroad comes up in three places and once is enough.
    let sources: Vec<_> = ruleset
        .conditions()
        .iter()
        .map(|c| c.predicate.source())
        .collect();
    let abroad = "has(request.country) && request.country != 'GB'";
    assert_eq!(sources.iter().filter(|source| **source == abroad).count(), 1);
}

#[test]
fn every_example_of_the_guide_parses() {
    let guide = include_str!("../../../docs/ruleset.md");
    let mut examples = 0;
    for block in guide.split("```yaml\n").skip(1) {
        let source = block.split("```").next().unwrap();
        if source.starts_with("version:") {
            assert_eq!(problems(source), Vec::<String>::new(), "{source}");
            examples += 1;
        }
    }
    assert!(examples >= 1);
}

#[test]
fn each_mistake_names_its_line_and_reason() {
    let table: &[(&str, &str)] = &[
        (
            "extra: 1\n",
            "r.yaml:10:1: unknown field `extra`; known are version, currency",
        ),
        (
            "segments: 1\n",
            "r.yaml:10:11: segments: expected a mapping, found an integer",
        ),
        (
            "segments:\n  vip: {}\n",
            "r.yaml:11:8: segments.vip: `when` is missing",
        ),
        (
            "segments:\n  vip: {when: 5}\n",
            "r.yaml:11:15: segments.vip.when: expected a condition, found an integer",
        ),
        (
            "segments:\n  v i: {when: true}\n",
            "r.yaml:11:3: segments.v i: a name is 1 to 64 characters",
        ),
        (
            "segments:\n  a: {when: request.cart.total > 1.0}\n",
            "segments.a.when: a segment cannot depend on the request",
        ),
        (
            "segments:\n  a: {when: \"'b' in profile.segments\"}\n",
            "segments.a.when: a segment cannot depend on segments",
        ),
        (
            "experiences: {}\n",
            "r.yaml:10:14: experiences: expected a list, found a mapping",
        ),
        (
            "experiences: [5]\n",
            "r.yaml:10:15: experiences[0]: expected a mapping, found an integer",
        ),
        (
            "experiences:\n  - {id: a}\n",
            "r.yaml:11:5: experiences[0]: `placement` is missing",
        ),
        (
            "experiences:\n  - {id: a, placement: nope}\n",
            "experiences[0].placement: there is no placement `nope`",
        ),
        (
            "experiences:\n  - {id: a, placement: promo}\n",
            "experiences[0]: `payload` is missing",
        ),
        (
            "experiences:\n  - {id: a, placement: pay}\n",
            "experiences[0]: `pin`, `boost`, `hide` or `variants` is missing",
        ),
        (
            "experiences:\n  - {id: a, placement: promo, pin: [x]}\n",
            "a placement of kind content has no `pin`",
        ),
        (
            "experiences:\n  - {id: a, placement: pay, payload: 1}\n",
            "a placement of kind ranking has no `payload`",
        ),
        (
            "experiences:\n  - {id: a, placement: pay, pin: [cash]}\n",
            "experiences[0].pin: `cash` is not a candidate",
        ),
        (
            "experiences:\n  - {id: a, placement: pay, boost: {card: 0}}\n",
            "boost.card: expected a number from 0.001 to 1000",
        ),
        (
            "experiences:\n  - {id: a, placement: pay, hide: [card, paypal]}\n",
            "hides every candidate that has no condition",
        ),
        (
            "experiences:\n  - {id: a, placement: promo, payload: .nan}\n",
            "JSON has no infinity and no NaN",
        ),
        (
            "experiences:\n  - {id: a, placement: promo, payload: 1, priority: high}\n",
            "priority: expected an integer, found text",
        ),
        (
            "experiences:\n  - {id: a, placement: promo, payload: 1, cap: {per: week, count: 1}}\n",
            "cap.per: expected session, day",
        ),
        (
            "experiences:\n  - {id: a, placement: promo, payload: 1, cap: {per: day, count: 0}}\n",
            "cap.count: expected an integer",
        ),
        (
            "experiences:\n  - {id: a, placement: promo, payload: 1}\n  - {id: a, placement: promo, payload: 2}\n",
            "r.yaml:12:5: experiences[1].id: `a` is the id of the experience in line 11 already",
        ),
        (
            "experiences:\n  - {id: a, placement: promo, variants: [{id: x, weight: 0, payload: 1}]}\n",
            "at least one variant with a weight above 0 is needed",
        ),
        (
            "experiences:\n  - {id: a, placement: promo, payload: 1, variants: [{id: x, payload: 1}]}\n",
            "experiences[0].payload: belongs into each of the `variants`",
        ),
        (
            "experiences:\n  - {id: a, placement: promo, variants: [{id: x, payload: 1}, {id: x, payload: 2}]}\n",
            "`x` is a variant already",
        ),
        (
            "experiences:\n  - {id: a, placement: promo, payload: 1, when: \"'vpi' in profile.segments\"}\n",
            "experiences[0].when: there is no segment `vpi`",
        ),
        ("currency: EUR\n", "r.yaml:10:1: the key `currency` occurs twice"),
        (
            "segments: &a {}\nexperiences: *a\n",
            "r.yaml:11:14: aliases are not supported",
        ),
        ("segments: !!map {}\n", "r.yaml:10:11: tags are not supported"),
        ("--- \nversion: 1\n", "a ruleset is one YAML document"),
        ("segments: [\n", "not YAML"),
        (
            "experiences:\n  - {id: a, placement: upsell, pin: [007]}\n",
            "007 would lose its leading zero; quote it",
        ),
        (
            "experiences:\n  - {id: a, placement: upsell, pin: [1.5]}\n",
            "pin[0]: expected text, found a number; quote it",
        ),
    ];
    for (rest, expected) in table {
        let found = problems_after_head(rest);
        assert!(
            found.iter().any(|problem| problem.contains(expected)),
            "{rest}\nexpected {expected}\nfound {found:#?}"
        );
        assert!(
            found.iter().all(|problem| problem.starts_with("r.yaml:")),
            "{found:#?}"
        );
    }
}

#[test]
fn all_problems_are_reported_at_once_in_the_order_of_the_lines() {
    let found = problems("version: 2\nplacements:\n  a: {kind: banner}\n  b: {kind: content}\nnope: 1\n");
    let lines: Vec<_> = found
        .iter()
        .map(|problem| problem.split(':').nth(1).unwrap())
        .collect();
    assert_eq!(lines, ["1", "1", "3", "4", "5"], "{found:#?}");
}

#[test]
fn an_ill_typed_condition_is_refused_at_its_place_in_the_file() {
    for (rest, place) in [
        ("segments:\n  a: {when: profile.orders == 'x'}\n", "r.yaml:11:"),
        (
            "segments:\n  a:\n    when: profile.ordres > 1\n",
            "r.yaml:12:18: segments.a.when: ",
        ),
        (
            "segments:\n  a:\n    when: \"profile.orders > 1 && profile.ordres > 1\"\n",
            "r.yaml:12:41: segments.a.when: ",
        ),
        (
            "segments:\n  a:\n    when: |\n      profile.orders > 1\n      && profile.ordres > 1\n",
            "r.yaml:14:17: ",
        ),
        (
            "segments:\n  a:\n    when: >-\n      profile.orders > 1\n      && profile.ordres > 1\n",
            "r.yaml:13:7: ",
        ),
    ] {
        let found = problems_after_head(rest);
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(
            found[0].starts_with(place),
            "{rest}\nexpected {place}\nfound {found:#?}"
        );
    }
}

#[test]
fn a_condition_may_be_a_plain_true_or_false() {
    assert_eq!(
        problems_after_head("segments: {all: {when: true}, none: {when: false}}\n"),
        Vec::<String>::new()
    );
}

#[test]
fn payloads_keep_their_order_and_types() {
    let source = format!(
        "{HEAD}experiences:\n  - id: a\n    placement: promo\n    payload: {{z: 1, a: [true, ~, 1.5, no, \"1\"], t: \"é\\n\"}}\n"
    );
    let ruleset = Ruleset::parse(&source, 1).unwrap();
    let VariantEffect::Payload(payload) = &ruleset.experiences()[0].variants[0].effect else {
        panic!()
    };
    assert_eq!(
        payload.as_json(),
        r#"{"z":1,"a":[true,null,1.5,"no","1"],"t":"é\n"}"#
    );
}

#[test]
fn only_what_conditions_name_is_gathered() {
    let reads = |condition: &str| {
        let rest =
            format!("experiences:\n  - {{id: a, placement: promo, payload: 1, when: \"{condition}\"}}\n");
        Ruleset::parse(
            &format!("{}{rest}", HEAD.replace("request.cart.total > 35.0", "true")),
            1,
        )
        .unwrap()
        .reads()
    };
    let cart_for_upsell = Reads {
        cart: true,
        ..Reads::default()
    };
    assert_eq!(
        reads("profile.orders > 1 && request.country == 'GB'"),
        cart_for_upsell
    );
    assert_eq!(
        reads("'mug' in profile.items"),
        Reads {
            items: true,
            ..cart_for_upsell
        }
    );
    assert_eq!(
        reads("has(profile.devices.phone)"),
        Reads {
            devices: true,
            ..cart_for_upsell
        }
    );
    // A comment with an apostrophe hides nothing.
    let source = format!(
        "{HEAD}experiences:\n  - id: a\n    placement: promo\n    payload: 1\n    when: |\n      true // don't\n      && 'mug' in profile.items\n"
    );
    assert!(Ruleset::parse(&source, 1).unwrap().reads().items);
}

#[test]
fn oversized_sources_are_refused() {
    assert!(problems(&" ".repeat(MAX_BYTES + 1))[0].contains("more than"));
    let many = "  - {id: a, placement: promo, payload: 1}\n".repeat(MAX_EXPERIENCES + 1);
    assert!(problems_after_head(&format!("experiences:\n{many}"))[0].contains("experiences, more than"));
    let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
    assert!(problems(&deep)[0].contains("nested deeper"));
    assert_eq!(problems(&"[".repeat(200_000)).len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn no_text_makes_the_parser_panic(text in "[\\x00-\\x7fé]{0,200}") {
        let _ = Ruleset::parse(&text, 1);
        let _ = Ruleset::parse(&format!("{HEAD}{text}"), 1);
    }

    #[test]
    fn no_damage_to_a_ruleset_makes_the_parser_panic(
        at in 0usize..4096, cut in 0usize..40, patch in "[-:{}\\[\\]'\"|>&*!%@#\\n a1]{0,6}",
    ) {
        let from = (0..=at.min(EXAMPLE.len())).rev().find(|at| EXAMPLE.is_char_boundary(*at)).unwrap_or(0);
        let to = (from + cut..EXAMPLE.len()).find(|at| EXAMPLE.is_char_boundary(*at)).unwrap_or(EXAMPLE.len());
        let damaged = format!("{}{patch}{}", &EXAMPLE[..from], &EXAMPLE[to.max(from)..]);
        if let Err(errors) = Ruleset::parse(&damaged, 1) {
            prop_assert!(!errors.problems.is_empty());
        }
    }
}
