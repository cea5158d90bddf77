//! Conditions: CEL in syntax and meaning, compiled once into a closed tree over borrowed facts.
//!
//! Why not interpret: the `cel` crate needs microseconds to bind a profile and almost one more per condition,
//! which is many times the budget of a whole decision. So its parser reads a condition, and everything after is
//! ours: names and types are checked against [`super::fields`], and what remains is a tree with one Rust type
//! per CEL type, evaluated without allocation (but for `+` on strings) and without a type test at run time.
//!
//! - **Bounds.** At most [`MAX_BYTES`], [`MAX_NODES`] and [`MAX_DEPTH`], checked over the tokens *before* the
//!   crate's parser sees the text, since that parser recurses and overflows the stack on deep input.
//! - **Errors absorb as in CEL**: `false && error` and `error && false` are false, `true || error` true, and so
//!   for `all` and `exists`. An error that remains makes [`Predicate::eval`] fail; the caller takes that for
//!   false, counts it and shows it.
//! - **What CEL has and this does not** is refused by name when compiling, never misread: `docs/conditions.md`
//!   lists it, and where the meaning differs from the crate's interpreter, which is the oracle of the tests.
//! - No clock, no time zone database, no regular expressions: `now` is a fact, zones are fixed offsets.
//!
//! The files follow a condition's way: `scan` (bounds), `compile` with `operator` and `call` (names and types),
//! `tree` (what comes out), `eval` and `arithmetic` (what it means), `number` and `time` (the values with rules of their own).

mod arithmetic;
mod call;
mod compile;
mod eval;
mod number;
mod operator;
mod scan;
#[cfg(test)]
mod tests;
mod time;
mod tree;

use std::fmt;
use std::sync::Arc;

use super::fields::Facts;

/// The longest condition, in bytes.
pub const MAX_BYTES: usize = 4096;
/// The most nodes of a condition's syntax tree: operands, operators, calls, selections and lists.
pub const MAX_NODES: usize = 200;
/// The deepest nesting of brackets and of `?:`.
pub const MAX_DEPTH: usize = 24;
/// The deepest nesting of `all`, `exists` and `exists_one`, whose costs multiply.
pub const MAX_MACRO_DEPTH: usize = 2;

/// A compiled condition. Cheap to clone and to share.
#[derive(Clone)]
pub struct Predicate {
    compiled: Arc<Compiled>,
}

struct Compiled {
    source: Box<str>,
    root: tree::BoolExpr,
    uses_profile: bool,
}

impl Predicate {
    /// Parses, checks and compiles a condition.
    ///
    /// # Errors
    /// [`CompileError`] when the text is too large or too deep, is not CEL, names an unknown field or function,
    /// is ill-typed, does not give a bool, or uses a part of CEL that is not supported.
    pub fn compile(source: &str) -> Result<Predicate, CompileError> {
        scan::check_bounds(source)?;
        let (root, uses_profile) = compile::compile(source)?;
        Ok(Predicate {
            compiled: Arc::new(Compiled {
                source: source.into(),
                root,
                uses_profile,
            }),
        })
    }

    /// Whether the condition holds.
    ///
    /// # Errors
    /// [`EvalError`] where CEL evaluates to an error. The condition is then to be taken for false.
    #[inline]
    pub fn eval(&self, facts: &Facts<'_>) -> Result<bool, EvalError> {
        self.compiled.root.eval(&eval::Env { facts, scope: None })
    }

    /// The text it was compiled from.
    pub fn source(&self) -> &str {
        &self.compiled.source
    }

    /// Whether any field of `profile` is read, so that a condition on the request alone can be told.
    pub fn uses_profile(&self) -> bool {
        self.compiled.uses_profile
    }
}

impl PartialEq for Predicate {
    fn eq(&self, other: &Predicate) -> bool {
        self.compiled.source == other.compiled.source
    }
}

impl Eq for Predicate {}

impl fmt::Debug for Predicate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Predicate").field(&self.source()).finish()
    }
}

/// Why a condition was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CompileError {
    /// For the person who wrote the condition.
    pub message: String,
    /// Where in the condition, in bytes, when it can be told.
    pub offset: Option<usize>,
}

impl CompileError {
    fn at(offset: impl Into<Option<usize>>, message: impl Into<String>) -> Self {
        CompileError {
            message: message.into(),
            offset: offset.into(),
        }
    }

    /// The line and column of the offset in `source`, both from 1, the column in characters.
    pub fn line_and_column(&self, source: &str) -> Option<(usize, usize)> {
        let before = source.get(..self.offset?)?;
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Some((
            before.matches('\n').count() + 1,
            before.get(line_start..)?.chars().count() + 1,
        ))
    }
}

/// Why a condition has no value for these facts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum EvalError {
    /// A field that is absent, or a key that the map does not have.
    #[error("no such key")]
    NoSuchKey,
    /// Integer, timestamp or duration arithmetic, or a conversion, left the type's range.
    #[error("out of range")]
    Overflow,
    #[error("division by zero")]
    DivideByZero,
    /// A list index below 0 or beyond the last element.
    #[error("index out of bounds")]
    IndexOutOfBounds,
    /// NaN has no place in an order.
    #[error("NaN cannot be ordered")]
    NotOrdered,
}

impl EvalError {
    /// A stable name, for metrics and explanations.
    pub fn code(self) -> &'static str {
        match self {
            EvalError::NoSuchKey => "no_such_key",
            EvalError::Overflow => "overflow",
            EvalError::DivideByZero => "divide_by_zero",
            EvalError::IndexOutOfBounds => "index_out_of_bounds",
            EvalError::NotOrdered => "not_ordered",
        }
    }
}
