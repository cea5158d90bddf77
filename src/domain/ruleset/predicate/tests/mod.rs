mod oracle;

use std::sync::Arc;

use proptest::prelude::*;

use super::number::{self, Number};
use super::{EvalError, MAX_BYTES, MAX_DEPTH, MAX_NODES, Predicate, time};
use crate::domain::ids::Timestamp;
use crate::domain::ruleset::fields::{CartFacts, Facts, ProfileFacts, RequestFacts, ScoreMap, StringList};

/// 2026-02-28T09:30:15.250Z, a Saturday.
const NOW: Timestamp = Timestamp(1_772_271_015_250);
const DAY: i64 = 86_400_000;

/// A returning shopper with an open cart.
fn facts() -> Facts<'static> {
    Facts {
        now: NOW,
        profile: ProfileFacts {
            known: true,
            segments: StringList::from(&["vip", "newsletter"][..]),
            orders: 7,
            cancelled: 1,
            revenue: 350.5,
            average_order_value: 50.0,
            refunds: 0,
            events: 120,
            first_seen: Some(Timestamp(NOW.0 - 400 * DAY)),
            last_seen: Some(Timestamp(NOW.0 - 60_000)),
            last_order: Some(Timestamp(NOW.0 - 40 * DAY)),
            checkout_step: 2,
            categories: ScoreMap::from(&[("shoes", 0.8), ("hats", 0.1)][..]),
            payment_methods: ScoreMap::from(&[("paypal", 3.5)][..]),
            recent_items: StringList::from(&["85123A", "22423"][..]),
            cart: CartFacts {
                total: 20.0,
                count: 1,
                items: StringList::from(&["22423"][..]),
            },
            ..ProfileFacts::default()
        },
        request: RequestFacts {
            cart: CartFacts {
                total: 99.99,
                count: 3,
                items: StringList::from(&["85123A", "POST"][..]),
            },
            currency: Some("EUR"),
            country: Some("DE"),
            locale: Some("de-DE"),
            device: None,
        },
    }
}

fn eval(source: &str) -> Result<bool, EvalError> {
    let predicate = Predicate::compile(source).unwrap_or_else(|error| panic!("{source}: {error}"));
    predicate.eval(&facts())
}

fn refusal(source: &str) -> String {
    match Predicate::compile(source) {
        Ok(_) => panic!("{source} should have been refused"),
        Err(error) => error.message,
    }
}

#[test]
fn conditions_of_a_real_ruleset_mean_what_they_say() {
    for source in [
        "profile.known && profile.orders >= 5 && profile.revenue > 300.0",
        "profile.revenue > 300 && profile.revenue / double(profile.orders) > 50.0",
        "'vip' in profile.segments && !('fraud' in profile.segments)",
        "profile.segments.exists(s, s.startsWith('news'))",
        "has(profile.last_order) && now - profile.last_order > duration('720h')",
        "has(profile.categories.shoes) && profile.categories.shoes > 0.5",
        "'shoes' in profile.categories && profile.categories['shoes'] >= 0.8",
        "profile.categories.exists(c, profile.categories[c] > 0.5)",
        "request.cart.total < 100.0 && request.cart.items.all(i, size(i) >= 4)",
        "request.cart.items.exists(i, i in profile.recent_items)",
        "request.country in ['DE', 'AT', 'CH'] && request.locale.startsWith('de')",
        "!has(request.device) || request.device == 'mobile'",
        "now.getDayOfWeek() == 6 && now.getHours('+01:00') == 10 && now.getFullYear() == 2026",
        "now >= timestamp('2026-02-01T00:00:00Z') && now < timestamp('2026-03-01T00:00:00+01:00')",
        "(profile.orders > 5 ? request.cart.total : 0.0) > 50.0",
        "profile.cart.items[0] == '22423' && profile.cart.count == 1 && profile.checkout_step == 2",
        "request.country + '/' + request.currency == 'DE/EUR'",
        "profile.orders in [1, 7] && 7.0 in [7] && !(7u in [1u])",
        "profile.payment_methods.exists_one(m, m == 'paypal') && size(profile.items) == 0",
        "[1, 2, 3].exists(n, profile.orders % 5 == n)",
        "request.cart.items.exists(a, profile.recent_items.exists(b, a == b && a != 'POST'))",
    ] {
        assert_eq!(eval(source), Ok(true), "{source}");
    }
}

#[test]
fn errors_are_values_that_and_or_all_and_exists_absorb() {
    use EvalError::{DivideByZero, IndexOutOfBounds, NoSuchKey, Overflow};
    for (source, expected) in [
        ("request.device == 'mobile'", Err(NoSuchKey)),
        ("request.device == 'mobile' && false", Ok(false)),
        ("false && request.device == 'mobile'", Ok(false)),
        ("request.device == 'mobile' || true", Ok(true)),
        ("true || request.device == 'mobile'", Ok(true)),
        ("request.device == 'mobile' || false", Err(NoSuchKey)),
        ("true && request.device == 'mobile'", Err(NoSuchKey)),
        ("!(request.device == 'mobile')", Err(NoSuchKey)),
        ("request.device == 'mobile' ? true : true", Err(NoSuchKey)),
        ("profile.categories.boats > 0.1", Err(NoSuchKey)),
        ("profile.categories[request.country] > 0.1", Err(NoSuchKey)),
        ("['a', 'shoes'].exists(c, profile.categories[c] > 0.5)", Ok(true)),
        (
            "['a', 'hats'].exists(c, profile.categories[c] > 0.5)",
            Err(NoSuchKey),
        ),
        ("['a', 'hats'].all(c, profile.categories[c] > 0.5)", Ok(false)),
        (
            "['a', 'shoes'].exists_one(c, profile.categories[c] > 0.5)",
            Err(NoSuchKey),
        ),
        ("profile.orders / 0 == 1", Err(DivideByZero)),
        ("profile.orders % profile.refunds == 1", Err(DivideByZero)),
        ("profile.revenue / 0.0 > 1.0", Ok(true)),
        ("profile.orders + 9223372036854775807 > 0", Err(Overflow)),
        ("-9223372036854775808 / -1 > 0", Err(Overflow)),
        ("1u - 2u == 0u", Err(Overflow)),
        ("int(1e300) == 0", Err(Overflow)),
        (
            "now + duration('2540400h') > now && now + duration('2540400h') + duration('2540400h') > now",
            Ok(true),
        ),
        (
            "timestamp('9999-12-31T23:59:59Z') + duration('1s') > now",
            Err(Overflow),
        ),
        (
            "timestamp('9999-12-31T23:59:59Z') - now > duration('0')",
            Err(Overflow),
        ),
        ("profile.segments[2] == 'vip'", Err(IndexOutOfBounds)),
        ("profile.segments[-1] == 'vip'", Err(IndexOutOfBounds)),
    ] {
        assert_eq!(eval(source), expected, "{source}");
    }
}

#[test]
fn numbers_of_different_types_are_points_on_one_line() {
    for (source, expected) in [
        ("1 == 1.0 && 1u == 1 && 1u == 1.0", true),
        ("9007199254740993 == 9007199254740992.0", false),
        ("9007199254740993 > 9007199254740992.0", true),
        ("9223372036854775807 < 9223372036854775808.0", true),
        ("18446744073709551615u < 18446744073709551616.0", true),
        ("-1 < 0u && 18446744073709551615u > 9223372036854775807", true),
        (
            "-1 > -1.5 && 1 < 1.5 && -9223372036854775808 == -9223372036854775808.0",
            true,
        ),
        ("9007199254740993 in [9007199254740992.0]", false),
        ("0.0 / 0.0 != 0.0 / 0.0", true),
        ("0.0 / 0.0 == 1", false),
    ] {
        assert_eq!(eval(source), Ok(expected), "{source}");
    }
    assert_eq!(eval("0.0 / 0.0 < 1"), Err(EvalError::NotOrdered));
    assert_eq!(eval("0.0 / 0.0 >= 0.0 / 0.0"), Err(EvalError::NotOrdered));
}

#[test]
fn refusals_name_what_was_written() {
    for (source, part) in [
        (
            "profile.oders > 1",
            "unknown field `profile.oders`; did you mean `profile.orders`?",
        ),
        ("profile.horoscope == 'leo'", "unknown field `profile.horoscope`"),
        ("user.orders > 1", "unknown field `user.orders`"),
        (
            "orders > 1",
            "unknown name `orders`: a condition sees `profile`, `request` and `now`",
        ),
        ("profile.cart > 1", "`profile.cart` is not a value"),
        ("profile.orders.x > 1", "`profile.orders` has no fields"),
        ("request.country > 1", "`>` cannot compare a string with a int"),
        ("profile.orders", "a condition is true or false, this is a int"),
        (
            "profile.orders && true",
            "an operand of `&&` must be a bool, this is a int",
        ),
        ("profile.revenue * 2 > 1.0", "write 2.0 instead of 2"),
        ("profile.revenue % 2.0 > 1.0", "`%` takes integers"),
        (
            "request.country.matches('D.*')",
            "`matches` is not supported: regular expressions",
        ),
        ("profile.segments.map(s, s) == []", "`map` is not supported"),
        (
            "profile.segments.filter(s, s == 'a') == []",
            "`filter` is not supported",
        ),
        ("string(profile.orders) == '1'", "`string` is not supported"),
        ("type(profile.orders) == int", "`type` is not supported"),
        ("profile.last_order == null", "`null` is not supported"),
        ("b'a' == b'a'", "`bytes` are not supported"),
        ("{'a': 1} == {}", "map literals are not supported"),
        ("Point{x: 1} == 1", "message literals"),
        (
            "profile.segments == ['a']",
            "`==` on lists and maps is not supported",
        ),
        (
            "[1, 'a'].exists(x, true)",
            "a list of int elements cannot hold a string",
        ),
        (
            "profile.orders in [profile.refunds]",
            "the elements of a list must be literals",
        ),
        (
            "1 in profile.segments",
            "a int is never in a list of string elements",
        ),
        ("'1' in [1, 2]", "a string is never in a list of int elements"),
        ("1 in profile.items", "the keys of a map are strings"),
        (
            "true ? 1 : 'a'",
            "both sides of `:` must have one type, not int and string",
        ),
        ("timestamp('yesterday') < now", "`yesterday` is not a timestamp"),
        ("timestamp(request.locale) < now", "timestamp() takes a literal"),
        ("now - now > duration('30d')", "`30d` is not a duration"),
        (
            "now.getHours('Europe/Berlin') > 1",
            "the time zone `Europe/Berlin` is not supported",
        ),
        (
            "duration('1s').getMilliseconds() == 0",
            "`getMilliseconds` of a duration is not supported",
        ),
        ("(now - now).getDate() == 0", "a duration has no `getDate`"),
        ("frobnicate(1)", "unknown function `frobnicate`"),
        ("has(profile)", "has() takes a field"),
        ("has(profile.categories['x'])", "has() takes a field"),
        ("has(profile.nothing)", "unknown field `profile.nothing`"),
        ("size(1) == 1", "a int has no size"),
        ("size() == 1", "`size` is written as in"),
        (
            "profile.segments.exists(profile, true)",
            "`profile` cannot be the name of a variable",
        ),
        (
            "profile.segments.exists(a.b, true)",
            "the variable must be a simple name",
        ),
        (
            "profile.segments.exists(s, s)",
            "what all, exists or exists_one test must be a bool",
        ),
        ("profile.orders.exists(s, true)", "a int has no elements"),
        ("[].exists(s, true)", "the list is empty"),
        (
            "['a'].all(a, ['b'].all(b, ['c'].all(c, a == b)))",
            "nest at most 2 deep",
        ),
        ("request.?country == 'a'", "not CEL: "),
        ("profile.orders = 1", "`=` is not a CEL operator; `==` is"),
        ("profile.orders > 1 &", "`&` is not a CEL operator"),
        ("profile.orders > 'abc", "the string is not closed"),
        ("profile.orders > ", "not CEL: "),
        ("profile.orders # 1", "unexpected character '#'"),
        ("", "the condition is empty"),
        (" // nothing", "the condition is empty"),
        ("(((", "not CEL: "),
        ("99999999999999999999 > 1", "not CEL: invalid int literal"),
    ] {
        let message = refusal(source);
        assert!(
            message.contains(part),
            "{source}\n  said: {message}\n  wanted: {part}"
        );
    }
}

#[test]
fn refusals_tell_the_position_in_bytes_and_in_lines() {
    let source = "request.country == 'Åland' ||\n  profile.oders > 1";
    let error = Predicate::compile(source).unwrap_err();
    let offset = error.offset.unwrap();
    assert_eq!(source.get(offset..).unwrap(), ".oders > 1");
    assert_eq!(error.line_and_column(source), Some((2, 10)));

    let syntax = "request.country == 'Åland' ||\n  profile.known )";
    let error = Predicate::compile(syntax).unwrap_err();
    assert_eq!(error.line_and_column(syntax), Some((2, 17)), "{error}");

    let scanned = "true ||\n 'Å' = 1";
    let error = Predicate::compile(scanned).unwrap_err();
    assert_eq!(error.line_and_column(scanned), Some((2, 6)), "{error}");
}

#[test]
fn sizes_beyond_the_bounds_are_refused_before_the_parser_sees_them() {
    let chain = |terms: usize| format!("{} > 0", vec!["1"; terms].join("+"));
    assert!(Predicate::compile(&chain(MAX_NODES / 2 - 1)).is_ok());
    assert!(refusal(&chain(MAX_NODES / 2)).contains("at most 200 nodes"));
    assert!(refusal(&chain(50_000)).contains("at most 4096 bytes"));
    let nested = |depth: usize| format!("{}true{}", "(".repeat(depth), ")".repeat(depth));
    assert!(Predicate::compile(&nested(MAX_DEPTH)).is_ok());
    assert!(refusal(&nested(MAX_DEPTH + 1)).contains("nested deeper than"));
    let chosen = |depth: usize| format!("{}false", "true ? true : ".repeat(depth));
    assert!(Predicate::compile(&chosen(MAX_DEPTH)).is_ok());
    assert!(refusal(&chosen(MAX_DEPTH + 1)).contains("nested deeper than"));
    let long = format!("'{}' == ''", "x".repeat(MAX_BYTES));
    assert!(refusal(&long).contains("at most 4096 bytes"));
    for (left, right) in [
        ("[", "]"),
        ("{1:", "}"),
        ("size(", ")"),
        ("!(", ")"),
        ("a[", "]"),
        ("-(", ")"),
    ] {
        let _ = Predicate::compile(&format!("{}{}", left.repeat(MAX_DEPTH), right.repeat(MAX_DEPTH)));
        let _ = Predicate::compile(&format!("{}1{}", left.repeat(MAX_DEPTH), right.repeat(MAX_DEPTH)));
        let _ = Predicate::compile(&left.repeat(MAX_DEPTH));
    }
    for chain in [
        "!", "-", "a.", "a[0]", "a?", "1+", "a()", "a.b()", "true||", "a&&b||", "1<", "a ? b : ",
    ] {
        let _ = Predicate::compile(&format!("{}true", chain.repeat(MAX_NODES / chain.len().min(3))));
        let _ = Predicate::compile(&format!("{}true", chain.repeat(MAX_DEPTH)));
    }
}

#[test]
fn a_small_stack_suffices_for_the_largest_condition() {
    let nested = format!("{}true{}", "(".repeat(MAX_DEPTH), ")".repeat(MAX_DEPTH));
    let lists = format!("{}1{} == 1", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH));
    let chosen = format!("{}false", "true ? true : ".repeat(MAX_DEPTH));
    let sum = format!("{} > 0", vec!["1"; MAX_NODES / 2 - 1].join("+"));
    let selection = format!("profile{}", ".a".repeat(MAX_NODES - 1));
    let calls = format!(
        "{}1{}",
        "size([".repeat(MAX_DEPTH / 2),
        "])".repeat(MAX_DEPTH / 2)
    );
    for source in [nested, lists, chosen, sum, selection, calls] {
        // The stack of a test's thread, or of a runtime's worker, is twice this.
        let thread = std::thread::Builder::new().stack_size(1024 * 1024);
        thread
            .spawn(move || drop(Predicate::compile(&source)))
            .unwrap()
            .join()
            .unwrap();
    }
}

#[test]
fn a_predicate_knows_its_source_and_whether_it_reads_the_profile() {
    let of_request = Predicate::compile("request.cart.total > 10.0").unwrap();
    let of_profile = Predicate::compile("has(profile.last_order)").unwrap();
    assert!(!of_request.uses_profile() && of_profile.uses_profile());
    assert_eq!(of_profile.source(), "has(profile.last_order)");
    assert_eq!(of_request, of_request.clone());
    assert_ne!(of_request, of_profile);
    assert_eq!(
        format!("{of_profile:?}"),
        "Predicate(\"has(profile.last_order)\")"
    );
    fn shared<T: Send + Sync + Clone>(_: &T) {}
    shared(&of_profile);
}

#[test]
fn facts_may_be_shared_strings() {
    let segments: Vec<Arc<str>> = vec!["vip".into()];
    let scores: Vec<(Arc<str>, f64)> = vec![("shoes".into(), 0.5)];
    let profile = ProfileFacts {
        segments: StringList::from(&segments[..]),
        categories: ScoreMap::from(&scores[..]),
        ..ProfileFacts::default()
    };
    let facts = Facts {
        profile,
        ..Facts::default()
    };
    let source = "'vip' in profile.segments && profile.segments[0] == 'vip' && profile.categories.shoes == 0.5
        && profile.categories.all(c, c == 'shoes') && size(profile.categories) == 1 && !('x' in profile.categories)";
    assert_eq!(Predicate::compile(source).unwrap().eval(&facts), Ok(true));
}

#[test]
fn durations_and_timestamps_are_read_exactly() {
    for (text, nanos) in [
        ("0", Some(0)),
        ("1s", Some(1_000_000_000)),
        ("-1.5h", Some(-5_400_000_000_000)),
        ("1h30m", Some(5_400_000_000_000)),
        (".5s", Some(500_000_000)),
        ("1.s", Some(1_000_000_000)),
        ("1.000000007s", Some(1_000_000_007)),
        ("1.9ns", Some(1)),
        ("100us1ms", Some(1_100_000)),
        ("9223372036854775807ns", Some(i64::MAX)),
        ("9223372036854775808ns", None),
        ("2562048h", None),
        ("99999999999999999999h", None),
        ("", None),
        ("-", None),
        ("s", None),
        (".s", None),
        ("1", None),
        ("1d", None),
        ("1.1.1s", None),
        ("1s ", None),
    ] {
        assert_eq!(time::parse_duration(text), nanos, "{text}");
    }
    for (text, seconds) in [
        ("1970-01-01T00:00:00Z", Some(0)),
        ("2000-02-29T23:59:59Z", Some(951_868_799)),
        ("2026-02-28T10:30:15.999999999999+01:00", Some(1_772_271_015)),
        ("1969-12-31T23:59:59.5Z", Some(-1)),
        ("0001-01-01T00:00:00Z", Some(-62_135_596_800)),
        ("9999-12-31T23:59:59.999999999Z", Some(253_402_300_799)),
        ("0001-01-01T00:00:00+00:01", None),
        ("9999-12-31T23:59:59-00:01", None),
        ("0000-12-31T23:59:59Z", None),
        ("2100-02-29T00:00:00Z", None),
        ("2026-13-01T00:00:00Z", None),
        ("2026-00-01T00:00:00Z", None),
        ("2026-04-31T00:00:00Z", None),
        ("2026-04-30T24:00:00Z", None),
        ("2026-04-30T23:59:60Z", None),
        ("2026-04-30T23:59:59", None),
        ("2026-04-30T23:59:59.Z", None),
        ("2026-04-30", None),
        ("2026-04-30T23:59:59+0100", None),
        ("２026-04-30T23:59:59Z", None),
    ] {
        assert_eq!(
            time::parse_timestamp(text).map(time::Instant::seconds),
            seconds,
            "{text}"
        );
    }
}

/// An integer against a double, decided on the double's own mantissa and exponent.
fn model(integer: i128, double: f64) -> std::cmp::Ordering {
    let bits = double.to_bits();
    let exponent = (bits >> 52 & 0x7ff) as i32;
    let fraction = i128::from(bits & ((1 << 52) - 1));
    let mantissa = if exponent == 0 {
        fraction
    } else {
        fraction | 1 << 52
    };
    let mantissa = if double.is_sign_negative() {
        -mantissa
    } else {
        mantissa
    };
    let exponent = exponent.max(1) - 1075;
    if exponent >= 12 {
        return if mantissa == 0 {
            integer.cmp(&0)
        } else {
            0.cmp(&mantissa.signum())
        };
    }
    if exponent >= 0 {
        return integer.cmp(&(mantissa << exponent));
    }
    if exponent > -60 {
        return (integer << -exponent).cmp(&mantissa);
    }
    integer.signum().cmp(&0).then(0.cmp(&mantissa.signum()))
}

proptest! {
    #[test]
    fn integers_compare_with_doubles_without_loss(integer: i64, steps in -3i64..4, far: f64, near: bool) {
        let double = if near { f64::from_bits((integer as f64).to_bits().wrapping_add_signed(steps)) } else { far };
        prop_assume!(!double.is_nan());
        let expected = model(i128::from(integer), double);
        prop_assert_eq!(number::compare(Number::Int(integer), Number::Double(double)), Some(expected));
        prop_assert_eq!(number::compare(Number::Double(double), Number::Int(integer)), Some(expected.reverse()));
        let unsigned = integer.unsigned_abs();
        let expected = model(i128::from(unsigned), double.abs());
        prop_assert_eq!(number::compare(Number::Uint(unsigned), Number::Double(double.abs())), Some(expected));
    }

    #[test]
    fn any_text_is_compiled_or_refused(text in ".{0,200}") {
        let _ = Predicate::compile(&text);
    }

    #[test]
    fn any_sequence_of_tokens_is_compiled_or_refused(tokens in prop::collection::vec(token(), 0..60)) {
        let source = tokens.concat();
        if let Ok(predicate) = Predicate::compile(&source) {
            let _ = predicate.eval(&facts());
            let _ = predicate.eval(&Facts::default());
        }
    }

    #[test]
    fn any_instant_has_a_calendar_date_and_any_duration_text_a_result(ms: i64, text in "[-0-9.hmsnuµ]{0,40}") {
        let facts = Facts { now: Timestamp(ms), ..Facts::default() };
        let source = "now.getFullYear() > 0 && now.getDayOfYear() < 366 && now.getMonth() < 12 && now.getDate() < 32
            && now.getDayOfMonth('-23:59') >= 0 && now.getDayOfWeek() < 7 && now.getMilliseconds() < 1000";
        let expected = if (-62_135_596_800_000..253_402_300_800_000).contains(&ms) { Ok(true) } else { Err(EvalError::Overflow) };
        prop_assert_eq!(Predicate::compile(source).unwrap().eval(&facts), expected);
        let _ = time::parse_duration(&text);
        let _ = time::parse_timestamp(&text);
    }
}

fn token() -> impl Strategy<Value = String> {
    let fixed = prop::sample::select(vec![
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        "?",
        ":",
        ".",
        ",",
        "+",
        "-",
        "*",
        "/",
        "%",
        "!",
        "==",
        "!=",
        "<",
        "<=",
        ">",
        ">=",
        "&&",
        "||",
        " ",
        "\n",
        " in ",
        "has",
        "size",
        "exists",
        "all",
        "exists_one",
        "timestamp",
        "duration",
        "profile",
        "request",
        "now",
        ".orders",
        ".segments",
        ".categories",
        "profile.orders",
        "request.country",
        "s",
        "true",
        "false",
        "null",
        "1",
        "0",
        "-1",
        "1u",
        "2.5",
        "1e3",
        ".5",
        "0x1F",
        "'a'",
        "\"b\"",
        "r'\\'",
        "b'x'",
        "'''t'''",
        "'\\u00e9'",
        "'\\ud800'",
        "'\\x'",
        "`q`",
        "// c\n",
        "=",
        "&",
        "|",
        "getHours",
        "()",
        "1.",
        "é",
        "\0",
        "9223372036854775808",
        "1e999",
        "if",
        "_",
        "$",
    ]);
    prop_oneof![9 => fixed.prop_map(str::to_owned), 1 => ".{0,3}"]
}
