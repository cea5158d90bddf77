//! What a compiled condition means.
//!
//! Operands are evaluated strictly and left to right, except that `&&`, `||` and `?:` evaluate what they need.
//! An error in `&&` and `||` (and in `all` and `exists`, which repeat them) is kept until no operand decides the
//! result without it; which of several errors is reported is not part of the meaning.

use std::borrow::Cow;
use std::cmp::Ordering;

use crate::domain::ruleset::fields::Facts;

use super::EvalError;
use super::number::{self, Number};
use super::time::Instant;
use super::tree::{
    BoolExpr, Choice, Comparison, Constant, Depth, DurationExpr, Expr, Macro, Quantifier, Range, TextExpr,
    TextList, TimeExpr,
};

/// What an expression is evaluated in: the facts, and the variables bound by macros around it.
#[derive(Clone, Copy)]
pub(super) struct Env<'v> {
    pub(super) facts: &'v Facts<'v>,
    pub(super) scope: Option<&'v Scope<'v>>,
}

/// One variable, and those bound outside of it.
pub(super) struct Scope<'v> {
    item: Item<'v>,
    outer: Option<&'v Scope<'v>>,
}

/// The value of a variable, or of an expression that is looked up in a list.
#[derive(Clone)]
pub(super) enum Item<'v> {
    Bool(bool),
    Number(Number),
    Text(Cow<'v, str>),
    Time(Instant),
    Duration(i64),
}

impl<'v> Env<'v> {
    /// The checker binds variables and types them, so that neither absence nor another type happens.
    pub(super) fn variable(&self, depth: Depth) -> Result<&'v Item<'v>, EvalError> {
        let mut scope = self.scope;
        for _ in 0..depth {
            scope = scope.and_then(|inner| inner.outer);
        }
        scope.map(|scope| &scope.item).ok_or(EvalError::NoSuchKey)
    }
}

impl<T> Choice<T> {
    pub(super) fn chosen(&self, env: &Env<'_>) -> Result<&T, EvalError> {
        Ok(if self.condition.eval(env)? {
            &self.then
        } else {
            &self.otherwise
        })
    }
}

impl Comparison {
    #[inline]
    fn holds<T: PartialOrd + ?Sized>(self, left: &T, right: &T) -> bool {
        match self {
            Comparison::Equal => left == right,
            Comparison::NotEqual => left != right,
            Comparison::Less => left < right,
            Comparison::LessOrEqual => left <= right,
            Comparison::Greater => left > right,
            Comparison::GreaterOrEqual => left >= right,
        }
    }

    /// NaN equals nothing, and to order it is an error.
    #[inline]
    fn holds_for_doubles(self, left: f64, right: f64) -> Result<bool, EvalError> {
        match self {
            Comparison::Equal | Comparison::NotEqual => {}
            _ if left.is_nan() || right.is_nan() => return Err(EvalError::NotOrdered),
            _ => {}
        }
        Ok(self.holds(&left, &right))
    }

    /// The same for numbers of two types; `None` is the order of NaN.
    fn accepts(self, ordering: Option<Ordering>) -> Result<bool, EvalError> {
        match (ordering, self) {
            (Some(ordering), _) => Ok(self.holds(&ordering, &Ordering::Equal)),
            (None, Comparison::Equal) => Ok(false),
            (None, Comparison::NotEqual) => Ok(true),
            (None, _) => Err(EvalError::NotOrdered),
        }
    }
}

impl BoolExpr {
    /// What most conditions are made of is in here, and the rest in `eval_other`: a function of all of it would spend more on
    /// its frame than on a comparison.
    pub(super) fn eval(&self, env: &Env<'_>) -> Result<bool, EvalError> {
        match self {
            BoolExpr::Constant(value) => Ok(*value),
            BoolExpr::Field(field) => Ok(field.read(env.facts)),
            BoolExpr::And(operands) => absorbing(operands.iter().map(|operand| operand.eval(env)), false),
            BoolExpr::Or(operands) => absorbing(operands.iter().map(|operand| operand.eval(env)), true),
            BoolExpr::CompareInts(op, pair) => Ok(op.holds(&pair.0.eval(env)?, &pair.1.eval(env)?)),
            BoolExpr::CompareDoubles(op, pair) => op.holds_for_doubles(pair.0.eval(env)?, pair.1.eval(env)?),
            BoolExpr::CompareTexts(op, pair) => match (pair.0.at_hand(env), pair.1.at_hand(env)) {
                (Some(left), Some(right)) => Ok(op.holds(left, right)),
                _ => self.eval_other(env),
            },
            BoolExpr::TextIn(operands) => match operands.0.at_hand(env) {
                Some(text) => Ok(operands.1.contains(text, env)),
                None => self.eval_other(env),
            },
            _ => self.eval_other(env),
        }
    }

    #[inline(never)]
    fn eval_other(&self, env: &Env<'_>) -> Result<bool, EvalError> {
        match self {
            BoolExpr::Variable(depth) => match env.variable(*depth)? {
                Item::Bool(value) => Ok(*value),
                _ => Err(EvalError::NoSuchKey),
            },
            BoolExpr::Not(operand) => Ok(!operand.eval(env)?),
            BoolExpr::Choice(choice) => choice.chosen(env)?.eval(env),
            BoolExpr::CompareBools(op, pair) => Ok(op.holds(&pair.0.eval(env)?, &pair.1.eval(env)?)),
            BoolExpr::CompareUints(op, pair) => Ok(op.holds(&pair.0.eval(env)?, &pair.1.eval(env)?)),
            BoolExpr::CompareNumbers(op, pair) => {
                op.accepts(number::compare(pair.0.eval(env)?, pair.1.eval(env)?))
            }
            BoolExpr::CompareTexts(op, pair) => Ok(op.holds(&*pair.0.eval(env)?, &*pair.1.eval(env)?)),
            BoolExpr::CompareTimes(op, pair) => Ok(op.holds(&pair.0.eval(env)?, &pair.1.eval(env)?)),
            BoolExpr::CompareDurations(op, pair) => Ok(op.holds(&pair.0.eval(env)?, &pair.1.eval(env)?)),
            BoolExpr::TextIn(operands) => Ok(operands.1.contains(&operands.0.eval(env)?, env)),
            BoolExpr::ScalarIn(operands) => {
                let needle = Item::of(&operands.0, env)?;
                Ok(operands.1.iter().any(|constant| needle.equals(constant)))
            }
            BoolExpr::KeyIn(map, key) => {
                let key = key.eval(env)?;
                Ok(map.read(env.facts).get(&key).is_some())
            }
            BoolExpr::HasText(field) => Ok(field.read(env.facts).is_some()),
            BoolExpr::HasTime(field) => Ok(field.read(env.facts).is_some()),
            BoolExpr::HasKey(map, key) => Ok(map.read(env.facts).get(key).is_some()),
            BoolExpr::StartsWith(pair) => Ok(pair.0.eval(env)?.starts_with(&*pair.1.eval(env)?)),
            BoolExpr::EndsWith(pair) => Ok(pair.0.eval(env)?.ends_with(&*pair.1.eval(env)?)),
            BoolExpr::Contains(pair) => Ok(pair.0.eval(env)?.contains(&*pair.1.eval(env)?)),
            BoolExpr::Macro(quantified) => quantified.eval(env),
            BoolExpr::Constant(_)
            | BoolExpr::Field(_)
            | BoolExpr::And(_)
            | BoolExpr::Or(_)
            | BoolExpr::CompareInts(..)
            | BoolExpr::CompareDoubles(..) => self.eval(env),
        }
    }
}

impl TextList {
    fn contains(&self, text: &str, env: &Env<'_>) -> bool {
        match self {
            TextList::Field(list) => list.read(env.facts).contains(text),
            TextList::Constants(list) => list.iter().any(|item| **item == *text),
        }
    }
}

/// `||` where `decisive` is true, `&&` where it is false: a decisive operand decides whatever failed beside it.
fn absorbing(
    operands: impl Iterator<Item = Result<bool, EvalError>>,
    decisive: bool,
) -> Result<bool, EvalError> {
    let mut result = Ok(!decisive);
    for operand in operands {
        match operand {
            Ok(value) if value == decisive => return Ok(decisive),
            Ok(_) => {}
            Err(error) => result = Err(error),
        }
    }
    result
}

impl Macro {
    pub(super) fn eval(&self, env: &Env<'_>) -> Result<bool, EvalError> {
        match &self.range {
            Range::List(field) => {
                let list = field.read(env.facts);
                let items = (0..list.len()).filter_map(|index| list.get(index));
                self.over(env, items.map(|text| Item::Text(Cow::Borrowed(text))))
            }
            Range::Keys(field) => {
                let map = field.read(env.facts);
                let keys = (0..map.len()).filter_map(|index| map.key(index));
                self.over(env, keys.map(|text| Item::Text(Cow::Borrowed(text))))
            }
            Range::Constants(constants) => self.over(env, constants.iter().map(Item::from)),
        }
    }

    fn over<'v>(&self, env: &Env<'v>, items: impl Iterator<Item = Item<'v>>) -> Result<bool, EvalError> {
        let mut outcomes = items.map(|item| {
            let scope = Scope {
                item,
                outer: env.scope,
            };
            self.body.eval(&Env {
                facts: env.facts,
                scope: Some(&scope),
            })
        });
        match self.quantifier {
            Quantifier::All => absorbing(outcomes, false),
            Quantifier::Exists => absorbing(outcomes, true),
            // Not made of `||`, so that every error counts.
            Quantifier::ExistsOne => {
                let count = outcomes.try_fold(0usize, |count, holds| Ok(count + usize::from(holds?)))?;
                Ok(count == 1)
            }
        }
    }
}

impl<'v> Item<'v> {
    fn of(expression: &'v Expr, env: &Env<'v>) -> Result<Item<'v>, EvalError> {
        Ok(match expression {
            Expr::Bool(e) => Item::Bool(e.eval(env)?),
            Expr::Int(e) => Item::Number(Number::Int(e.eval(env)?)),
            Expr::Uint(e) => Item::Number(Number::Uint(e.eval(env)?)),
            Expr::Double(e) => Item::Number(Number::Double(e.eval(env)?)),
            Expr::Text(e) => Item::Text(e.eval(env)?),
            Expr::Time(e) => Item::Time(e.eval(env)?),
            Expr::Duration(e) => Item::Duration(e.eval(env)?),
            // The checker looks up scalars only.
            Expr::List(_) | Expr::Scores(_) => return Err(EvalError::NoSuchKey),
        })
    }

    fn equals(&self, constant: &Constant) -> bool {
        match (self, constant) {
            (Item::Bool(a), Constant::Bool(b)) => a == b,
            (Item::Number(a), Constant::Number(b)) => number::compare(*a, *b).is_some_and(Ordering::is_eq),
            (Item::Text(a), Constant::Text(b)) => **a == **b,
            (Item::Time(a), Constant::Time(b)) => a == b,
            (Item::Duration(a), Constant::Duration(b)) => a == b,
            _ => false,
        }
    }
}

impl<'v> From<&'v Constant> for Item<'v> {
    fn from(constant: &'v Constant) -> Self {
        match constant {
            Constant::Bool(value) => Item::Bool(*value),
            Constant::Number(value) => Item::Number(*value),
            Constant::Text(value) => Item::Text(Cow::Borrowed(value)),
            Constant::Time(value) => Item::Time(*value),
            Constant::Duration(value) => Item::Duration(*value),
        }
    }
}

impl TextExpr {
    /// A text that is there and has not to be made.
    #[inline]
    fn at_hand<'v>(&'v self, env: &Env<'v>) -> Option<&'v str> {
        match self {
            TextExpr::Constant(text) => Some(text),
            TextExpr::Field(field) => field.read(env.facts),
            _ => None,
        }
    }

    pub(super) fn eval<'v>(&'v self, env: &Env<'v>) -> Result<Cow<'v, str>, EvalError> {
        match self {
            TextExpr::Constant(text) => Ok(Cow::Borrowed(text)),
            TextExpr::Field(field) => field
                .read(env.facts)
                .map(Cow::Borrowed)
                .ok_or(EvalError::NoSuchKey),
            TextExpr::Variable(depth) => match env.variable(*depth)? {
                Item::Text(text) => Ok(Cow::Borrowed(text)),
                _ => Err(EvalError::NoSuchKey),
            },
            TextExpr::Element(operands) => {
                let index =
                    usize::try_from(operands.1.eval(env)?).map_err(|_| EvalError::IndexOutOfBounds)?;
                let element = match &operands.0 {
                    TextList::Field(list) => list.read(env.facts).get(index),
                    TextList::Constants(list) => list.get(index).map(AsRef::as_ref),
                };
                element.map(Cow::Borrowed).ok_or(EvalError::IndexOutOfBounds)
            }
            TextExpr::Concatenate(pair) => Ok(pair.0.eval(env)? + pair.1.eval(env)?),
            TextExpr::Choice(choice) => choice.chosen(env)?.eval(env),
        }
    }
}

impl TimeExpr {
    pub(super) fn eval(&self, env: &Env<'_>) -> Result<Instant, EvalError> {
        match self {
            TimeExpr::Constant(instant) => Ok(*instant),
            TimeExpr::Now(field) => Instant::from_fact(field.read(env.facts)),
            TimeExpr::Field(field) => field
                .read(env.facts)
                .ok_or(EvalError::NoSuchKey)
                .and_then(Instant::from_fact),
            TimeExpr::Variable(depth) => match env.variable(*depth)? {
                Item::Time(instant) => Ok(*instant),
                _ => Err(EvalError::NoSuchKey),
            },
            TimeExpr::Add(pair) => pair.0.eval(env)?.add(pair.1.eval(env)?),
            TimeExpr::Subtract(pair) => pair.0.eval(env)?.subtract(pair.1.eval(env)?),
            TimeExpr::Choice(choice) => choice.chosen(env)?.eval(env),
        }
    }
}

impl DurationExpr {
    pub(super) fn eval(&self, env: &Env<'_>) -> Result<i64, EvalError> {
        match self {
            DurationExpr::Constant(nanos) => Ok(*nanos),
            DurationExpr::Variable(depth) => match env.variable(*depth)? {
                Item::Duration(nanos) => Ok(*nanos),
                _ => Err(EvalError::NoSuchKey),
            },
            DurationExpr::Add(pair) => pair
                .0
                .eval(env)?
                .checked_add(pair.1.eval(env)?)
                .ok_or(EvalError::Overflow),
            DurationExpr::Subtract(pair) => pair
                .0
                .eval(env)?
                .checked_sub(pair.1.eval(env)?)
                .ok_or(EvalError::Overflow),
            DurationExpr::Between(pair) => pair.0.eval(env)?.since(pair.1.eval(env)?),
            DurationExpr::Choice(choice) => choice.chosen(env)?.eval(env),
        }
    }
}
