//! Our conditions against the `cel` crate's interpreter, on generated conditions and facts.
//!
//! A condition is grown from a sequence of choices, by type, so that a failure shrinks to the simplest condition
//! that still differs (choice 0 is always a literal). It reaches errors of every kind, their absorption, missing
//! keys, mixed numbers, NaN, overflow and the calendar. Where the two are *known* to differ is listed in
//! [`DIFFERENCES`], each with what either says; the generator stays clear of those.

use std::collections::HashMap;

use cel::{Context, Program, Value};
use chrono::DateTime;
use proptest::prelude::*;

use crate::domain::ids::Timestamp;
use crate::domain::ruleset::fields::{CartFacts, Facts, ProfileFacts, RequestFacts, ScoreMap, StringList};
use crate::domain::ruleset::predicate::Predicate;

const INTS: [i64; 12] = [
    0,
    1,
    -1,
    2,
    7,
    -13,
    1000,
    1 << 53,
    (1 << 53) + 1,
    i64::MAX,
    i64::MIN,
    i64::MAX - 1,
];
const SMALL_INTS: [i64; 6] = [0, 1, -1, 2, 3, 4_000_000_000];
const UINTS: [u64; 6] = [0, 1, 2, 10, 1 << 63, u64::MAX];
const DOUBLES: [f64; 12] = [
    0.0,
    1.0,
    -1.5,
    0.5,
    2.0,
    -0.0,
    9_007_199_254_740_992.0,
    9_223_372_036_854_775_808.0,
    1e300,
    f64::INFINITY,
    f64::NEG_INFINITY,
    f64::NAN,
];
const TEXTS: [&str; 7] = ["", "a", "vip", "shoes", "DE", "é", "de-DE"];
const TIMES: [&str; 7] = [
    "1970-01-01T00:00:00Z",
    "2026-02-28T09:30:15.25Z",
    "2024-02-29T23:59:59.999Z",
    "2025-12-31T23:30:00Z",
    "1969-07-20T20:17:40Z",
    "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:59Z",
];
const DURATIONS: [&str; 7] = ["0", "1s", "-90m", "36h", "1h1m1s", "2562047h", "-2562047h"];
const OFFSETS: [&str; 5] = ["UTC", "+01:00", "-08:00", "05:30", "-23:59"];

/// Owned facts, to bind in the one and borrow in the other.
#[derive(Debug, Clone)]
struct Owned {
    bools: bool,
    ints: [i64; 5],
    small: [i64; 2],
    doubles: [f64; 4],
    times: [Option<i64>; 3],
    now: i64,
    texts: [Option<&'static str>; 4],
    lists: [Vec<&'static str>; 3],
    maps: [Vec<(&'static str, f64)>; 2],
}

fn owned() -> impl Strategy<Value = Owned> {
    let int = prop::sample::select(&INTS[..]);
    let small = prop::sample::select(&SMALL_INTS[..]);
    let double = prop::sample::select(&DOUBLES[..]);
    let text = prop::sample::select(&TEXTS[..]);
    let time = prop_oneof![
        -62_135_596_800_000i64..253_402_300_800_000,
        Just(0),
        Just(1_772_271_015_250),
        1_700_000_000_000i64..1_800_000_000_000,
    ];
    let scores = prop::collection::btree_map(text.clone(), double.clone(), 0..4);
    (
        (
            any::<bool>(),
            [int.clone(), int.clone(), int.clone(), int.clone(), int],
            [small.clone(), small],
        ),
        [double.clone(), double.clone(), double.clone(), double],
        [
            prop::option::of(time.clone()),
            prop::option::of(time.clone()),
            prop::option::of(time.clone()),
        ],
        time,
        [
            prop::option::of(text.clone()),
            prop::option::of(text.clone()),
            prop::option::of(text.clone()),
            prop::option::of(text.clone()),
        ],
        [
            prop::collection::vec(text.clone(), 0..4),
            prop::collection::vec(text.clone(), 0..4),
            prop::collection::vec(text, 0..4),
        ],
        [scores.clone(), scores],
    )
        .prop_map(
            |((bools, ints, small), doubles, times, now, texts, lists, maps)| {
                let maps = maps.map(|map| map.into_iter().collect());
                Owned {
                    bools,
                    ints,
                    small,
                    doubles,
                    times,
                    now,
                    texts,
                    lists,
                    maps,
                }
            },
        )
}

impl Owned {
    fn facts(&self) -> Facts<'_> {
        let [orders, cancelled, refunds, events, checkout_step] = self.ints;
        Facts {
            now: Timestamp(self.now),
            profile: ProfileFacts {
                known: self.bools,
                segments: StringList::from(&self.lists[0][..]),
                orders,
                cancelled,
                revenue: self.doubles[0],
                average_order_value: self.doubles[1],
                refunds,
                events,
                first_seen: self.times[0].map(Timestamp),
                last_seen: self.times[1].map(Timestamp),
                last_order: self.times[2].map(Timestamp),
                checkout_step,
                items: ScoreMap::from(&self.maps[0][..]),
                categories: ScoreMap::from(&self.maps[1][..]),
                recent_items: StringList::from(&self.lists[1][..]),
                cart: CartFacts {
                    total: self.doubles[2],
                    count: self.small[0],
                    items: StringList::default(),
                },
                ..ProfileFacts::default()
            },
            request: RequestFacts {
                cart: CartFacts {
                    total: self.doubles[3],
                    count: self.small[1],
                    items: StringList::from(&self.lists[2][..]),
                },
                currency: self.texts[0],
                country: self.texts[1],
                locale: self.texts[2],
                device: self.texts[3],
            },
        }
    }

    /// The same facts as variables of the interpreter.
    fn context(&self) -> Context<'static, 'static> {
        fn list(items: StringList<'_>) -> Value {
            let items = (0..items.len()).filter_map(|index| items.get(index));
            Value::List(
                items
                    .map(|text| Value::from(text.to_owned()))
                    .collect::<Vec<_>>()
                    .into(),
            )
        }
        fn scores(map: ScoreMap<'_>) -> Value {
            let keys = (0..map.len()).filter_map(|index| map.key(index));
            let entries = keys.map(|key| (key.to_owned(), Value::Float(map.get(key).unwrap())));
            Value::from(entries.collect::<HashMap<_, _>>())
        }
        fn instant(timestamp: Timestamp) -> Value {
            Value::Timestamp(
                DateTime::from_timestamp_millis(timestamp.0)
                    .unwrap()
                    .fixed_offset(),
            )
        }
        fn object(entries: Vec<(&str, Option<Value>)>) -> Value {
            let present = entries
                .into_iter()
                .filter_map(|(name, value)| Some((name.to_owned(), value?)));
            Value::from(present.collect::<HashMap<_, _>>())
        }
        fn cart(cart: CartFacts<'_>) -> Value {
            object(vec![
                ("total", Some(cart.total.into())),
                ("count", Some(cart.count.into())),
                ("items", Some(list(cart.items))),
            ])
        }
        let text = |text: Option<&str>| text.map(|text| Value::from(text.to_owned()));
        let Facts {
            now,
            profile,
            request,
        } = self.facts();
        let mut context = Context::default();
        context.add_variable_from_value("now", instant(now));
        let bound = object(vec![
            ("known", Some(profile.known.into())),
            ("segments", Some(list(profile.segments))),
            ("orders", Some(profile.orders.into())),
            ("cancelled", Some(profile.cancelled.into())),
            ("revenue", Some(profile.revenue.into())),
            ("average_order_value", Some(profile.average_order_value.into())),
            ("refunds", Some(profile.refunds.into())),
            ("events", Some(profile.events.into())),
            ("first_seen", profile.first_seen.map(instant)),
            ("last_seen", profile.last_seen.map(instant)),
            ("last_order", profile.last_order.map(instant)),
            ("checkout_step", Some(profile.checkout_step.into())),
            ("items", Some(scores(profile.items))),
            ("categories", Some(scores(profile.categories))),
            ("payment_methods", Some(scores(profile.payment_methods))),
            ("shipping_methods", Some(scores(profile.shipping_methods))),
            ("devices", Some(scores(profile.devices))),
            ("recent_items", Some(list(profile.recent_items))),
            ("cart", Some(cart(profile.cart))),
        ]);
        context.add_variable_from_value("profile", bound);
        let bound = object(vec![
            ("cart", Some(cart(request.cart))),
            ("currency", text(request.currency)),
            ("country", text(request.country)),
            ("locale", text(request.locale)),
            ("device", text(request.device)),
        ]);
        context.add_variable_from_value("request", bound);
        context
    }
}

/// Grows one condition from a sequence of choices.
struct Grower<'a> {
    choices: std::slice::Iter<'a, u16>,
    /// String variables in scope.
    variables: Vec<&'static str>,
}

impl Grower<'_> {
    /// A choice below `bound`; 0 once the choices are used up.
    fn pick(&mut self, bound: usize) -> usize {
        self.choices
            .next()
            .map_or(0, |choice| usize::from(*choice) % bound)
    }

    fn of<T: Copy>(&mut self, pool: &[T]) -> T {
        pool[self.pick(pool.len())]
    }

    fn comparison(&mut self) -> &'static str {
        self.of(&["==", "!=", "<", "<=", ">", ">="])
    }

    fn bool(&mut self, depth: usize) -> String {
        if depth == 0 {
            return self
                .of(&[
                    "true",
                    "false",
                    "profile.known",
                    "has(profile.last_order)",
                    "has(request.device)",
                ])
                .to_owned();
        }
        let less = depth - 1;
        match self.pick(20) {
            0 => self.bool(0),
            1 | 2 => format!("({} && {})", self.bool(less), self.bool(less)),
            3 | 4 => format!("({} || {})", self.bool(less), self.bool(less)),
            5 => format!("!({})", self.bool(less)),
            6 => format!(
                "({} ? {} : {})",
                self.bool(less),
                self.bool(less),
                self.bool(less)
            ),
            7 => format!("({} {} {})", self.int(less), self.comparison(), self.int(less)),
            8 => format!(
                "({} {} {})",
                self.double(less),
                self.comparison(),
                self.double(less)
            ),
            9 => format!("({} {} {})", self.uint(less), self.comparison(), self.uint(less)),
            10 => {
                let (a, b) = (self.small_int(), self.double(less));
                if self.pick(2) == 0 {
                    format!("({a} {} {b})", self.comparison())
                } else {
                    format!("({b} {} {a})", self.comparison())
                }
            }
            11 => {
                let (a, b) = (self.int(less), self.uint(less));
                if self.pick(2) == 0 {
                    format!("({a} {} {b})", self.comparison())
                } else {
                    format!("({b} {} {a})", self.comparison())
                }
            }
            12 => format!("({} {} {})", self.text(less), self.comparison(), self.text(less)),
            13 => format!("({} {} {})", self.time(less), self.comparison(), self.time(less)),
            14 => format!(
                "({} {} {})",
                self.duration(less),
                self.comparison(),
                self.duration(less)
            ),
            15 => match self.pick(4) {
                0 => format!("({} in {})", self.text(less), self.list()),
                1 => format!("({} in {})", self.text(less), self.map()),
                2 => format!("({} in [1, -1, 9223372036854775807])", self.int(less)),
                _ => format!("({} in [0.5, 2.0])", self.double(less)),
            },
            16 => {
                let method = self.of(&["startsWith", "endsWith", "contains"]);
                format!("{}.{method}({})", self.text(less), self.text(less))
            }
            17 => format!("has({}.{})", self.map(), self.of(&["a", "vip", "shoes"])),
            18 => format!("({} {} {})", self.bool(less), self.comparison(), self.bool(less)),
            _ => {
                let variable = match self.variables.len() {
                    0 => "x",
                    1 => self.of(&["y", "x"]),
                    _ => return self.bool(0),
                };
                let range = if self.pick(2) == 0 {
                    self.list()
                } else {
                    self.map()
                };
                let quantifier = self.of(&["exists", "all", "exists_one"]);
                self.variables.push(variable);
                let body = self.bool(less);
                self.variables.pop();
                format!("{range}.{quantifier}({variable}, {body})")
            }
        }
    }

    fn small_int(&mut self) -> String {
        match self.pick(4) {
            0 => self.of(&SMALL_INTS).to_string(),
            1 => "request.cart.count".to_owned(),
            2 => "profile.cart.count".to_owned(),
            _ => format!("size({})", self.list()),
        }
    }

    fn int(&mut self, depth: usize) -> String {
        const FIELDS: [&str; 6] = [
            "profile.orders",
            "profile.cancelled",
            "profile.refunds",
            "profile.events",
            "profile.checkout_step",
            "profile.cart.count",
        ];
        if depth == 0 {
            return if self.pick(2) == 0 {
                self.of(&INTS).to_string()
            } else {
                self.of(&FIELDS).to_owned()
            };
        }
        let less = depth - 1;
        match self.pick(9) {
            0 | 1 => self.int(0),
            2 => format!("(-({}))", self.int(less)),
            3 => format!(
                "({} {} {})",
                self.int(less),
                self.of(&["+", "-", "*", "/", "%"]),
                self.int(less)
            ),
            4 => format!("({} ? {} : {})", self.bool(less), self.int(less), self.int(less)),
            5 => match self.pick(3) {
                0 => format!("size({})", self.text(less)),
                1 => format!("size({})", self.list()),
                _ => format!("{}.size()", self.map()),
            },
            6 => match self.pick(3) {
                0 => format!("int({})", self.uint(less)),
                1 => format!("int({})", self.double(less)),
                _ => format!("int({})", self.time(less)),
            },
            7 => {
                let getter = self.of(&[
                    "FullYear",
                    "Month",
                    "DayOfYear",
                    "DayOfMonth",
                    "Date",
                    "DayOfWeek",
                    "Hours",
                    "Minutes",
                    "Seconds",
                    "Milliseconds",
                ]);
                let zone = if self.pick(2) == 0 {
                    String::new()
                } else {
                    format!("'{}'", self.of(&OFFSETS))
                };
                format!("{}.get{getter}({zone})", self.time(less))
            }
            _ => format!(
                "{}.get{}()",
                self.duration(less),
                self.of(&["Hours", "Minutes", "Seconds"])
            ),
        }
    }

    fn uint(&mut self, depth: usize) -> String {
        if depth == 0 {
            return format!("{}u", self.of(&UINTS));
        }
        let less = depth - 1;
        match self.pick(4) {
            0 => self.uint(0),
            1 => format!(
                "({} {} {})",
                self.uint(less),
                self.of(&["+", "-", "*", "/", "%"]),
                self.uint(less)
            ),
            2 => format!("uint({})", self.int(less)),
            _ => format!("uint({})", self.double(less)),
        }
    }

    fn double(&mut self, depth: usize) -> String {
        const FIELDS: [&str; 4] = [
            "profile.revenue",
            "profile.average_order_value",
            "profile.cart.total",
            "request.cart.total",
        ];
        if depth == 0 {
            return match self.pick(3) {
                0 => format!("{:?}", self.of(&DOUBLES[..9])),
                1 => self.of(&FIELDS).to_owned(),
                _ => format!("{}.{}", self.map(), self.of(&["a", "vip", "shoes", "DE"])),
            };
        }
        let less = depth - 1;
        match self.pick(6) {
            0 => self.double(0),
            1 => format!("(-({}))", self.double(less)),
            2 => format!(
                "({} {} {})",
                self.double(less),
                self.of(&["+", "-", "*", "/"]),
                self.double(less)
            ),
            3 => format!(
                "({} ? {} : {})",
                self.bool(less),
                self.double(less),
                self.double(less)
            ),
            4 => format!(
                "double({})",
                if self.pick(2) == 0 {
                    self.int(less)
                } else {
                    self.uint(less)
                }
            ),
            _ => format!("{}[{}]", self.map(), self.text(less)),
        }
    }

    fn text(&mut self, depth: usize) -> String {
        const FIELDS: [&str; 4] = [
            "request.country",
            "request.currency",
            "request.locale",
            "request.device",
        ];
        if depth == 0 {
            return match self.pick(3) {
                0 => format!("'{}'", self.of(&TEXTS)),
                1 => self.of(&FIELDS).to_owned(),
                _ => self
                    .variables
                    .last()
                    .map_or_else(|| "'a'".to_owned(), |variable| (*variable).to_owned()),
            };
        }
        let less = depth - 1;
        match self.pick(5) {
            0 | 1 => self.text(0),
            2 => format!("({} + {})", self.text(less), self.text(less)),
            3 => format!(
                "({} ? {} : {})",
                self.bool(less),
                self.text(less),
                self.text(less)
            ),
            _ => format!(
                "{}[{}]",
                self.list(),
                self.of(&["0", "1", "-1", "3", "9223372036854775807"])
            ),
        }
    }

    fn time(&mut self, depth: usize) -> String {
        const FIELDS: [&str; 4] = [
            "now",
            "profile.first_seen",
            "profile.last_seen",
            "profile.last_order",
        ];
        if depth == 0 {
            return match self.pick(3) {
                0 => format!("timestamp('{}')", self.of(&TIMES)),
                1 => self.of(&FIELDS).to_owned(),
                _ => format!(
                    "timestamp({})",
                    self.of(&[0i64, 1_700_000_000, -62_135_596_800, 253_402_300_799])
                ),
            };
        }
        let less = depth - 1;
        match self.pick(5) {
            0 | 1 => self.time(0),
            2 => format!(
                "({} {} {})",
                self.time(less),
                self.of(&["+", "-"]),
                self.duration(less)
            ),
            3 => format!("({} + {})", self.duration(less), self.time(less)),
            _ => format!(
                "({} ? {} : {})",
                self.bool(less),
                self.time(less),
                self.time(less)
            ),
        }
    }

    fn duration(&mut self, depth: usize) -> String {
        if depth == 0 {
            return format!("duration('{}')", self.of(&DURATIONS));
        }
        let less = depth - 1;
        match self.pick(4) {
            0 => self.duration(0),
            1 => format!(
                "({} {} {})",
                self.duration(less),
                self.of(&["+", "-"]),
                self.duration(less)
            ),
            2 => format!("({} - {})", self.time(less), self.time(less)),
            _ => format!(
                "({} ? {} : {})",
                self.bool(less),
                self.duration(less),
                self.duration(less)
            ),
        }
    }

    fn list(&mut self) -> String {
        let lists = [
            "['a', 'vip']",
            "profile.segments",
            "profile.recent_items",
            "request.cart.items",
            "profile.cart.items",
        ];
        self.of(&lists).to_owned()
    }

    fn map(&mut self) -> String {
        self.of(&["profile.items", "profile.categories", "profile.devices"])
            .to_owned()
    }
}

/// The crate's answer; `None` is an error.
fn interpret(source: &str, context: &Context<'_, '_>) -> Option<bool> {
    match Program::compile(source)
        .unwrap_or_else(|error| panic!("{source}: {error}"))
        .execute(context)
    {
        Ok(Value::Bool(value)) => Some(value),
        Ok(other) => panic!("{source} gave {other:?}"),
        Err(_) => None,
    }
}

proptest! {
    #[test]
    fn conditions_agree_with_the_interpreter(
        facts in prop::collection::vec(owned(), 1..4),
        choices in prop::collection::vec(any::<u16>(), 0..120),
        depth in 1usize..5,
    ) {
        let source = Grower { choices: choices.iter(), variables: Vec::new() }.bool(depth);
        let predicate = match Predicate::compile(&source) {
            Ok(predicate) => predicate,
            Err(error) if error.message.contains("nodes") || error.message.contains("nested deeper") => return Ok(()),
            Err(error) => return Err(TestCaseError::fail(format!("{source}: {error}"))),
        };
        for facts in &facts {
            let ours = predicate.eval(&facts.facts());
            prop_assert_eq!(ours.ok(), interpret(&source, &facts.context()), "{} gave {:?} on {:?}", source, ours, facts);
        }
    }
}

/// A condition, what we say, what the crate says (`None`: an error), and why ours stands.
type Difference = (&'static str, Option<bool>, Option<bool>, &'static str);

/// Also the table "Differences" of `docs/conditions.md`.
const DIFFERENCES: [Difference; 5] = [
    (
        "9007199254740993 == 9007199254740992.0",
        Some(false),
        Some(true),
        "CEL compares numbers of different types as points on one number line; the crate rounds the integer first",
    ),
    (
        "9007199254740993 > 9007199254740992.0",
        Some(true),
        Some(false),
        "the same",
    ),
    (
        "9223372036854775807 < 9223372036854775808.0",
        Some(true),
        Some(false),
        "the same",
    ),
    (
        "duration('1.000000007s') - duration('1s') == duration('7ns')",
        Some(true),
        Some(false),
        "the crate reads the number as a double; ours is exact",
    ),
    (
        "timestamp('2026-01-01T00:30:00+01:00').getFullYear() == 2025",
        Some(true),
        Some(false),
        "a getter without a zone is in UTC; the crate keeps the offset of the literal",
    ),
];

/// What the crate evaluates, or leaves until then, and we refuse when compiling.
const REFUSED: [&str; 6] = [
    "duration('1s and more') == duration('1s')",
    "duration('1.5s').getMilliseconds() == 1500",
    "timestamp('2026-12-31T23:59:60Z') > now",
    "1 == 'a' || true",
    "profile.nothing == 1 || true",
    "[profile.orders, 1] == [1, 1] || true",
];

#[test]
fn known_differences_are_those_listed_and_no_others() {
    let nobody = Owned {
        bools: false,
        ints: [0; 5],
        small: [0; 2],
        doubles: [0.0; 4],
        times: [None; 3],
        now: 0,
        texts: [None; 4],
        lists: [vec![], vec![], vec![]],
        maps: [vec![], vec![]],
    };
    let page = include_str!("../../../../../docs/conditions.md");
    for (source, ours, theirs, why) in DIFFERENCES {
        assert_eq!(
            Predicate::compile(source).unwrap().eval(&nobody.facts()).ok(),
            ours,
            "{source}: {why}"
        );
        assert_eq!(
            interpret(source, &nobody.context()),
            theirs,
            "{source}: the crate has changed"
        );
        assert!(
            page.contains(&format!("`{source}`")),
            "docs/conditions.md does not list {source}"
        );
    }
    for source in REFUSED {
        assert!(Predicate::compile(source).is_err(), "{source}");
        assert!(Program::compile(source).is_ok(), "{source}");
        let _ = interpret(source, &nobody.context());
    }
}
