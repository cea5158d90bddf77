//! What a compiled condition means: the numeric expressions.
//!
//! Integers are checked: what overflows or divides by zero is an error, never a wrapped number. Doubles follow
//! IEEE 754.

use super::EvalError;
use super::eval::{Env, Item};
use super::number::{self, Number};
use super::tree::{Arithmetic, DoubleExpr, IntExpr, NumberExpr, UintExpr};

impl IntExpr {
    /// What is at hand is read in place, without a call.
    #[inline]
    pub(super) fn eval(&self, env: &Env<'_>) -> Result<i64, EvalError> {
        match self {
            IntExpr::Constant(value) => Ok(*value),
            IntExpr::Field(field) => Ok(field.read(env.facts)),
            _ => self.compute(env),
        }
    }

    fn compute(&self, env: &Env<'_>) -> Result<i64, EvalError> {
        match self {
            IntExpr::Constant(_) | IntExpr::Field(_) => self.eval(env),
            IntExpr::Variable(depth) => match env.variable(*depth)? {
                Item::Number(Number::Int(value)) => Ok(*value),
                _ => Err(EvalError::NoSuchKey),
            },
            IntExpr::Negate(operand) => operand.eval(env)?.checked_neg().ok_or(EvalError::Overflow),
            IntExpr::Arithmetic(op, pair) => {
                let (left, right) = (pair.0.eval(env)?, pair.1.eval(env)?);
                let result = match op {
                    Arithmetic::Add => left.checked_add(right),
                    Arithmetic::Subtract => left.checked_sub(right),
                    Arithmetic::Multiply => left.checked_mul(right),
                    Arithmetic::Divide | Arithmetic::Remainder if right == 0 => {
                        return Err(EvalError::DivideByZero);
                    }
                    Arithmetic::Divide => left.checked_div(right),
                    Arithmetic::Remainder => left.checked_rem(right),
                };
                result.ok_or(EvalError::Overflow)
            }
            IntExpr::Choice(choice) => choice.chosen(env)?.eval(env),
            IntExpr::FromUint(operand) => i64::try_from(operand.eval(env)?).map_err(|_| EvalError::Overflow),
            IntExpr::FromDouble(operand) => {
                number::int_from_double(operand.eval(env)?).ok_or(EvalError::Overflow)
            }
            IntExpr::FromTime(operand) => Ok(operand.eval(env)?.seconds()),
            IntExpr::TextSize(operand) => Ok(length(operand.eval(env)?.chars().count())),
            IntExpr::ListSize(list) => Ok(length(list.read(env.facts).len())),
            IntExpr::ScoresSize(map) => Ok(length(map.read(env.facts).len())),
            IntExpr::TimePart(part, offset, operand) => Ok(operand.eval(env)?.part(*part, *offset)),
            IntExpr::DurationIn(unit, operand) => {
                operand.eval(env)?.checked_div(*unit).ok_or(EvalError::Overflow)
            }
        }
    }
}

/// Lengths of things in memory fit.
fn length(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

impl UintExpr {
    pub(super) fn eval(&self, env: &Env<'_>) -> Result<u64, EvalError> {
        match self {
            UintExpr::Constant(value) => Ok(*value),
            UintExpr::Variable(depth) => match env.variable(*depth)? {
                Item::Number(Number::Uint(value)) => Ok(*value),
                _ => Err(EvalError::NoSuchKey),
            },
            UintExpr::Arithmetic(op, pair) => {
                let (left, right) = (pair.0.eval(env)?, pair.1.eval(env)?);
                let result = match op {
                    Arithmetic::Add => left.checked_add(right),
                    Arithmetic::Subtract => left.checked_sub(right),
                    Arithmetic::Multiply => left.checked_mul(right),
                    Arithmetic::Divide | Arithmetic::Remainder if right == 0 => {
                        return Err(EvalError::DivideByZero);
                    }
                    Arithmetic::Divide => left.checked_div(right),
                    Arithmetic::Remainder => left.checked_rem(right),
                };
                result.ok_or(EvalError::Overflow)
            }
            UintExpr::Choice(choice) => choice.chosen(env)?.eval(env),
            UintExpr::FromInt(operand) => u64::try_from(operand.eval(env)?).map_err(|_| EvalError::Overflow),
            UintExpr::FromDouble(operand) => {
                number::uint_from_double(operand.eval(env)?).ok_or(EvalError::Overflow)
            }
        }
    }
}

impl DoubleExpr {
    /// What is at hand is read in place, without a call.
    #[inline]
    pub(super) fn eval(&self, env: &Env<'_>) -> Result<f64, EvalError> {
        match self {
            DoubleExpr::Constant(value) => Ok(*value),
            DoubleExpr::Field(field) => Ok(field.read(env.facts)),
            _ => self.compute(env),
        }
    }

    fn compute(&self, env: &Env<'_>) -> Result<f64, EvalError> {
        match self {
            DoubleExpr::Constant(_) | DoubleExpr::Field(_) => self.eval(env),
            DoubleExpr::Variable(depth) => match env.variable(*depth)? {
                Item::Number(Number::Double(value)) => Ok(*value),
                _ => Err(EvalError::NoSuchKey),
            },
            DoubleExpr::Score(map, key) => map.read(env.facts).get(key).ok_or(EvalError::NoSuchKey),
            DoubleExpr::ScoreOf(map, key) => {
                let key = key.eval(env)?;
                map.read(env.facts).get(&key).ok_or(EvalError::NoSuchKey)
            }
            DoubleExpr::Negate(operand) => Ok(-operand.eval(env)?),
            DoubleExpr::Arithmetic(op, pair) => {
                let (left, right) = (pair.0.eval(env)?, pair.1.eval(env)?);
                Ok(match op {
                    Arithmetic::Add => left + right,
                    Arithmetic::Subtract => left - right,
                    Arithmetic::Multiply => left * right,
                    Arithmetic::Divide => left / right,
                    // Refused by the checker: CEL has no remainder of doubles.
                    Arithmetic::Remainder => left % right,
                })
            }
            DoubleExpr::Choice(choice) => choice.chosen(env)?.eval(env),
            DoubleExpr::FromInt(operand) => Ok(operand.eval(env)? as f64),
            DoubleExpr::FromUint(operand) => Ok(operand.eval(env)? as f64),
        }
    }
}

impl NumberExpr {
    pub(super) fn eval(&self, env: &Env<'_>) -> Result<Number, EvalError> {
        match self {
            NumberExpr::Int(e) => Ok(Number::Int(e.eval(env)?)),
            NumberExpr::Uint(e) => Ok(Number::Uint(e.eval(env)?)),
            NumberExpr::Double(e) => Ok(Number::Double(e.eval(env)?)),
        }
    }
}
