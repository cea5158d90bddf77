//! Operators: which types each takes, and what it becomes. A refusal is the message for the writer.

use super::number::{self, Number};
use super::tree::{
    Arithmetic, BoolExpr, Choice, Comparison, Constant, DoubleExpr, DurationExpr, Expr, IntExpr, Kind,
    ListExpr, NumberExpr, TextExpr, TextList, TimeExpr, UintExpr,
};

type Typed = Result<Expr, String>;

fn comparison(symbol: &str) -> Option<Comparison> {
    Some(match symbol {
        "==" => Comparison::Equal,
        "!=" => Comparison::NotEqual,
        "<" => Comparison::Less,
        "<=" => Comparison::LessOrEqual,
        ">" => Comparison::Greater,
        ">=" => Comparison::GreaterOrEqual,
        _ => return None,
    })
}

fn arithmetic(symbol: &str) -> Option<Arithmetic> {
    Some(match symbol {
        "+" => Arithmetic::Add,
        "-" => Arithmetic::Subtract,
        "*" => Arithmetic::Multiply,
        "/" => Arithmetic::Divide,
        "%" => Arithmetic::Remainder,
        _ => return None,
    })
}

pub(super) fn is_binary(symbol: &str) -> bool {
    comparison(symbol).is_some() || arithmetic(symbol).is_some()
}

/// A comparison or an arithmetic operator.
pub(super) fn binary(symbol: &str, operands: (Expr, Expr)) -> Typed {
    if let Some(op) = comparison(symbol) {
        return compare(symbol, op, operands).map(Expr::Bool);
    }
    match arithmetic(symbol) {
        Some(op) => calculate(symbol, op, operands),
        None => Err(format!("`{symbol}` is not supported")),
    }
}

/// `&&` and `||`. The parser makes a balanced tree of a chain; a chain is one node here.
pub(super) fn logical(and: bool, (left, right): (BoolExpr, BoolExpr)) -> BoolExpr {
    let mut operands = Vec::new();
    for operand in [left, right] {
        match operand {
            BoolExpr::And(inner) if and => operands.extend(inner),
            BoolExpr::Or(inner) if !and => operands.extend(inner),
            other => operands.push(other),
        }
    }
    if and {
        BoolExpr::And(operands.into())
    } else {
        BoolExpr::Or(operands.into())
    }
}

fn compare(symbol: &str, op: Comparison, (left, right): (Expr, Expr)) -> Result<BoolExpr, String> {
    let kinds = (left.kind(), right.kind());
    Ok(match (left, right) {
        (Expr::Bool(a), Expr::Bool(b)) => BoolExpr::CompareBools(op, Box::new((a, b))),
        (Expr::Text(a), Expr::Text(b)) => BoolExpr::CompareTexts(op, Box::new((a, b))),
        (Expr::Time(a), Expr::Time(b)) => BoolExpr::CompareTimes(op, Box::new((a, b))),
        (Expr::Duration(a), Expr::Duration(b)) => BoolExpr::CompareDurations(op, Box::new((a, b))),
        (Expr::List(_) | Expr::Scores(_), Expr::List(_) | Expr::Scores(_)) => {
            return Err(format!(
                "`{symbol}` on lists and maps is not supported: use `in`, all(…) or size(…)"
            ));
        }
        (left, right) => match (into_number(left), into_number(right)) {
            (Some(a), Some(b)) => compare_numbers(op, a, b),
            _ => {
                let (a, b) = (kinds.0.name(), kinds.1.name());
                return Err(format!("`{symbol}` cannot compare a {a} with a {b}"));
            }
        },
    })
}

fn into_number(expression: Expr) -> Option<NumberExpr> {
    match expression {
        Expr::Int(e) => Some(NumberExpr::Int(e)),
        Expr::Uint(e) => Some(NumberExpr::Uint(e)),
        Expr::Double(e) => Some(NumberExpr::Double(e)),
        _ => None,
    }
}

/// A literal that is compared with a number of another type becomes a literal of that type where that loses
/// nothing, so that `profile.revenue > 100` is a plain comparison of doubles.
fn compare_numbers(op: Comparison, left: NumberExpr, right: NumberExpr) -> BoolExpr {
    let (left, right) = match (&left, &right) {
        (_, NumberExpr::Int(IntExpr::Constant(n))) => {
            let converted = convert(Number::Int(*n), &left);
            (left, converted.unwrap_or(right))
        }
        (_, NumberExpr::Uint(UintExpr::Constant(n))) => {
            let converted = convert(Number::Uint(*n), &left);
            (left, converted.unwrap_or(right))
        }
        (NumberExpr::Int(IntExpr::Constant(n)), _) => {
            let converted = convert(Number::Int(*n), &right);
            (converted.unwrap_or(left), right)
        }
        (NumberExpr::Uint(UintExpr::Constant(n)), _) => {
            let converted = convert(Number::Uint(*n), &right);
            (converted.unwrap_or(left), right)
        }
        _ => (left, right),
    };
    match (left, right) {
        (NumberExpr::Int(a), NumberExpr::Int(b)) => BoolExpr::CompareInts(op, Box::new((a, b))),
        (NumberExpr::Uint(a), NumberExpr::Uint(b)) => BoolExpr::CompareUints(op, Box::new((a, b))),
        (NumberExpr::Double(a), NumberExpr::Double(b)) => BoolExpr::CompareDoubles(op, Box::new((a, b))),
        pair => BoolExpr::CompareNumbers(op, Box::new(pair)),
    }
}

/// The literal in the type of `like`, where that type has exactly this number.
fn convert(literal: Number, like: &NumberExpr) -> Option<NumberExpr> {
    match (literal, like) {
        (Number::Int(n), NumberExpr::Uint(_)) => u64::try_from(n)
            .ok()
            .map(|n| NumberExpr::Uint(UintExpr::Constant(n))),
        (Number::Uint(n), NumberExpr::Int(_)) => i64::try_from(n)
            .ok()
            .map(|n| NumberExpr::Int(IntExpr::Constant(n))),
        (Number::Int(n), NumberExpr::Double(_)) => exact(literal, n as f64),
        (Number::Uint(n), NumberExpr::Double(_)) => exact(literal, n as f64),
        _ => None,
    }
}

fn exact(literal: Number, double: f64) -> Option<NumberExpr> {
    let same = number::compare(literal, Number::Double(double)).is_some_and(|ordering| ordering.is_eq());
    same.then_some(NumberExpr::Double(DoubleExpr::Constant(double)))
}

fn calculate(symbol: &str, op: Arithmetic, operands: (Expr, Expr)) -> Typed {
    let kinds = (operands.0.kind(), operands.1.kind());
    Ok(match (op, operands) {
        (_, (Expr::Int(a), Expr::Int(b))) => Expr::Int(IntExpr::Arithmetic(op, Box::new((a, b)))),
        (_, (Expr::Uint(a), Expr::Uint(b))) => Expr::Uint(UintExpr::Arithmetic(op, Box::new((a, b)))),
        (Arithmetic::Remainder, (Expr::Double(_), Expr::Double(_))) => {
            return Err("`%` takes integers: convert with int(…)".to_owned());
        }
        (_, (Expr::Double(a), Expr::Double(b))) => Expr::Double(DoubleExpr::Arithmetic(op, Box::new((a, b)))),
        (Arithmetic::Add, (Expr::Text(a), Expr::Text(b))) => {
            Expr::Text(TextExpr::Concatenate(Box::new((a, b))))
        }
        (
            Arithmetic::Add,
            (Expr::Time(time), Expr::Duration(duration)) | (Expr::Duration(duration), Expr::Time(time)),
        ) => Expr::Time(TimeExpr::Add(Box::new((time, duration)))),
        (Arithmetic::Subtract, (Expr::Time(time), Expr::Duration(duration))) => {
            Expr::Time(TimeExpr::Subtract(Box::new((time, duration))))
        }
        (Arithmetic::Subtract, (Expr::Time(a), Expr::Time(b))) => {
            Expr::Duration(DurationExpr::Between(Box::new((a, b))))
        }
        (Arithmetic::Add, (Expr::Duration(a), Expr::Duration(b))) => {
            Expr::Duration(DurationExpr::Add(Box::new((a, b))))
        }
        (Arithmetic::Subtract, (Expr::Duration(a), Expr::Duration(b))) => {
            Expr::Duration(DurationExpr::Subtract(Box::new((a, b))))
        }
        (Arithmetic::Add, (Expr::List(_), Expr::List(_))) => {
            return Err("`+` on lists is not supported".to_owned());
        }
        _ => {
            let (a, b) = (kinds.0.name(), kinds.1.name());
            let advice = if kinds.0.is_number() && kinds.1.is_number() {
                ": CEL wants one type, so write 2.0 instead of 2, or convert with double(…) or int(…)"
            } else {
                ""
            };
            return Err(format!("`{symbol}` cannot take a {a} and a {b}{advice}"));
        }
    })
}

pub(super) fn negate(operand: Expr) -> Typed {
    match operand {
        Expr::Int(e) => Ok(Expr::Int(IntExpr::Negate(Box::new(e)))),
        Expr::Double(e) => Ok(Expr::Double(DoubleExpr::Negate(Box::new(e)))),
        other => Err(format!("`-` cannot take a {}", other.kind().name())),
    }
}

/// `condition ? then : otherwise`
pub(super) fn choose(condition: BoolExpr, branches: (Expr, Expr)) -> Typed {
    fn choice<T>(condition: BoolExpr, then: T, otherwise: T) -> Box<Choice<T>> {
        Box::new(Choice {
            condition,
            then,
            otherwise,
        })
    }
    let kinds = (branches.0.kind(), branches.1.kind());
    Ok(match branches {
        (Expr::Bool(a), Expr::Bool(b)) => Expr::Bool(BoolExpr::Choice(choice(condition, a, b))),
        (Expr::Int(a), Expr::Int(b)) => Expr::Int(IntExpr::Choice(choice(condition, a, b))),
        (Expr::Uint(a), Expr::Uint(b)) => Expr::Uint(UintExpr::Choice(choice(condition, a, b))),
        (Expr::Double(a), Expr::Double(b)) => Expr::Double(DoubleExpr::Choice(choice(condition, a, b))),
        (Expr::Text(a), Expr::Text(b)) => Expr::Text(TextExpr::Choice(choice(condition, a, b))),
        (Expr::Time(a), Expr::Time(b)) => Expr::Time(TimeExpr::Choice(choice(condition, a, b))),
        (Expr::Duration(a), Expr::Duration(b)) => {
            Expr::Duration(DurationExpr::Choice(choice(condition, a, b)))
        }
        _ if kinds.0 == kinds.1 => return Err("`?:` on lists and maps is not supported".to_owned()),
        _ => {
            let (a, b) = (kinds.0.name(), kinds.1.name());
            return Err(format!("both sides of `:` must have one type, not {a} and {b}"));
        }
    })
}

/// `container[index]`
pub(super) fn index(operands: (Expr, Expr)) -> Typed {
    match operands {
        (Expr::Scores(map), Expr::Text(TextExpr::Constant(key))) => {
            Ok(Expr::Double(DoubleExpr::Score(map, key)))
        }
        (Expr::Scores(map), Expr::Text(key)) => Ok(Expr::Double(DoubleExpr::ScoreOf(map, Box::new(key)))),
        (Expr::List(list), Expr::Int(index)) => match texts(list) {
            Some(list) => Ok(Expr::Text(TextExpr::Element(Box::new((list, index))))),
            None => Err("only lists of strings can be indexed".to_owned()),
        },
        (container, index) => {
            let (a, b) = (container.kind().name(), index.kind().name());
            Err(format!(
                "`[]` cannot take a {a} and a {b}: a map is indexed by a string, a list by an int"
            ))
        }
    }
}

/// The list as one of strings, which the empty list is too.
fn texts(list: ListExpr) -> Option<TextList> {
    match list {
        ListExpr::Field(field) => Some(TextList::Field(field)),
        ListExpr::Constants(None | Some(Kind::Text), constants) => {
            let texts = constants.into_iter().filter_map(|constant| match constant {
                Constant::Text(text) => Some(text),
                _ => None,
            });
            Some(TextList::Constants(texts.collect()))
        }
        ListExpr::Constants(..) => None,
    }
}

/// `needle in container`
pub(super) fn contains(operands: (Expr, Expr)) -> Typed {
    Ok(Expr::Bool(match operands {
        (Expr::Text(key), Expr::Scores(map)) => BoolExpr::KeyIn(map, Box::new(key)),
        (other, Expr::Scores(_)) => {
            return Err(format!(
                "the keys of a map are strings, so a {} is never in one",
                other.kind().name()
            ));
        }
        (Expr::List(_) | Expr::Scores(_), Expr::List(_)) => {
            return Err("lists of lists are not supported".to_owned());
        }
        (
            Expr::Text(needle),
            Expr::List(list @ (ListExpr::Field(_) | ListExpr::Constants(None | Some(Kind::Text), _))),
        ) => match texts(list) {
            Some(list) => BoolExpr::TextIn(Box::new((needle, list))),
            None => return Err("`in` cannot take this list".to_owned()),
        },
        (needle, Expr::List(ListExpr::Constants(kind, constants)))
            if kind.is_none_or(|kind| agree(kind, needle.kind())) =>
        {
            BoolExpr::ScalarIn(Box::new((needle, constants)))
        }
        (needle, Expr::List(list)) => {
            let of = match list {
                ListExpr::Constants(Some(kind), _) => kind,
                _ => Kind::Text,
            };
            return Err(format!(
                "a {} is never in a list of {} elements",
                needle.kind().name(),
                of.name()
            ));
        }
        (_, other) => {
            return Err(format!(
                "`in` needs a list or a map, not a {}",
                other.kind().name()
            ));
        }
    }))
}

/// Whether values of the two kinds can be equal.
fn agree(a: Kind, b: Kind) -> bool {
    a == b || (a.is_number() && b.is_number())
}
