//! What a condition is compiled to: one enum per CEL type, so that no value is tested for its type at run time.
//!
//! Operands are boxed in pairs, which keeps every node small and a tree close together. Constants are folded in
//! where they were written; lists are constants or fields, so no list is ever built while evaluating.

use crate::domain::ruleset::fields::{
    BoolField, DoubleField, IntField, ListField, NowField, ScoreField, TextField, TimeField,
};

use super::number::Number;
use super::time::{Instant, Part};

/// An expression of any type, while compiling.
#[derive(Debug)]
pub(super) enum Expr {
    Bool(BoolExpr),
    Int(IntExpr),
    Uint(UintExpr),
    Double(DoubleExpr),
    Text(TextExpr),
    Time(TimeExpr),
    Duration(DurationExpr),
    List(ListExpr),
    Scores(ScoreField),
}

/// A type, for checks and messages. `None` of a list is the empty list's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    Int,
    Uint,
    Double,
    Text,
    Time,
    Duration,
    List,
    Scores,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Bool => "bool",
            Kind::Int => "int",
            Kind::Uint => "uint",
            Kind::Double => "double",
            Kind::Text => "string",
            Kind::Time => "timestamp",
            Kind::Duration => "duration",
            Kind::List => "list",
            Kind::Scores => "map",
        }
    }

    pub(super) fn is_number(self) -> bool {
        matches!(self, Kind::Int | Kind::Uint | Kind::Double)
    }
}

impl Expr {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Expr::Bool(_) => Kind::Bool,
            Expr::Int(_) => Kind::Int,
            Expr::Uint(_) => Kind::Uint,
            Expr::Double(_) => Kind::Double,
            Expr::Text(_) => Kind::Text,
            Expr::Time(_) => Kind::Time,
            Expr::Duration(_) => Kind::Duration,
            Expr::List(_) => Kind::List,
            Expr::Scores(_) => Kind::Scores,
        }
    }
}

pub(super) type Pair<T> = Box<(T, T)>;

/// `condition ? then : otherwise`.
#[derive(Debug)]
pub(super) struct Choice<T> {
    pub(super) condition: BoolExpr,
    pub(super) then: T,
    pub(super) otherwise: T,
}

/// How many macros outward a variable was bound; 0 is the innermost.
pub(super) type Depth = u8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

#[derive(Debug)]
pub(super) enum BoolExpr {
    Constant(bool),
    Field(BoolField),
    Variable(Depth),
    Not(Box<BoolExpr>),
    /// `&&`, flattened.
    And(Box<[BoolExpr]>),
    /// `||`, flattened.
    Or(Box<[BoolExpr]>),
    Choice(Box<Choice<BoolExpr>>),
    CompareBools(Comparison, Pair<BoolExpr>),
    CompareInts(Comparison, Pair<IntExpr>),
    CompareUints(Comparison, Pair<UintExpr>),
    CompareDoubles(Comparison, Pair<DoubleExpr>),
    /// Numbers of two types.
    CompareNumbers(Comparison, Pair<NumberExpr>),
    CompareTexts(Comparison, Pair<TextExpr>),
    CompareTimes(Comparison, Pair<TimeExpr>),
    CompareDurations(Comparison, Pair<DurationExpr>),
    TextIn(Box<(TextExpr, TextList)>),
    /// A scalar that is no string in a list of constants.
    ScalarIn(Box<(Expr, Box<[Constant]>)>),
    KeyIn(ScoreField, Box<TextExpr>),
    HasText(TextField),
    HasTime(TimeField),
    HasKey(ScoreField, Box<str>),
    StartsWith(Pair<TextExpr>),
    EndsWith(Pair<TextExpr>),
    Contains(Pair<TextExpr>),
    Macro(Box<Macro>),
}

#[derive(Debug)]
pub(super) enum IntExpr {
    Constant(i64),
    Field(IntField),
    Variable(Depth),
    Negate(Box<IntExpr>),
    Arithmetic(Arithmetic, Pair<IntExpr>),
    Choice(Box<Choice<IntExpr>>),
    FromUint(Box<UintExpr>),
    FromDouble(Box<DoubleExpr>),
    FromTime(Box<TimeExpr>),
    TextSize(Box<TextExpr>),
    ListSize(ListField),
    ScoresSize(ScoreField),
    TimePart(Part, i32, Box<TimeExpr>),
    /// A duration in whole units of so many nanoseconds, towards zero.
    DurationIn(i64, Box<DurationExpr>),
}

#[derive(Debug)]
pub(super) enum UintExpr {
    Constant(u64),
    Variable(Depth),
    Arithmetic(Arithmetic, Pair<UintExpr>),
    Choice(Box<Choice<UintExpr>>),
    FromInt(Box<IntExpr>),
    FromDouble(Box<DoubleExpr>),
}

#[derive(Debug)]
pub(super) enum DoubleExpr {
    Constant(f64),
    Field(DoubleField),
    Variable(Depth),
    /// A map's value by a constant key, the usual case.
    Score(ScoreField, Box<str>),
    ScoreOf(ScoreField, Box<TextExpr>),
    Negate(Box<DoubleExpr>),
    Arithmetic(Arithmetic, Pair<DoubleExpr>),
    Choice(Box<Choice<DoubleExpr>>),
    FromInt(Box<IntExpr>),
    FromUint(Box<UintExpr>),
}

#[derive(Debug)]
pub(super) enum TextExpr {
    Constant(Box<str>),
    Field(TextField),
    Variable(Depth),
    Element(Box<(TextList, IntExpr)>),
    Concatenate(Pair<TextExpr>),
    Choice(Box<Choice<TextExpr>>),
}

#[derive(Debug)]
pub(super) enum TimeExpr {
    Constant(Instant),
    Now(NowField),
    Field(TimeField),
    Variable(Depth),
    Add(Box<(TimeExpr, DurationExpr)>),
    Subtract(Box<(TimeExpr, DurationExpr)>),
    Choice(Box<Choice<TimeExpr>>),
}

#[derive(Debug)]
pub(super) enum DurationExpr {
    Constant(i64),
    Variable(Depth),
    Add(Pair<DurationExpr>),
    Subtract(Pair<DurationExpr>),
    Between(Pair<TimeExpr>),
    Choice(Box<Choice<DurationExpr>>),
}

#[derive(Debug)]
pub(super) enum NumberExpr {
    Int(IntExpr),
    Uint(UintExpr),
    Double(DoubleExpr),
}

#[derive(Debug)]
pub(super) enum ListExpr {
    Field(ListField),
    /// All of one kind; the empty list has none.
    Constants(Option<Kind>, Box<[Constant]>),
}

#[derive(Debug)]
pub(super) enum TextList {
    Field(ListField),
    Constants(Box<[Box<str>]>),
}

#[derive(Debug, Clone)]
pub(super) enum Constant {
    Bool(bool),
    Number(Number),
    Text(Box<str>),
    Time(Instant),
    Duration(i64),
}

/// `range.all(x, body)` and its kin.
#[derive(Debug)]
pub(super) struct Macro {
    pub(super) quantifier: Quantifier,
    pub(super) range: Range,
    pub(super) body: BoolExpr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quantifier {
    All,
    Exists,
    ExistsOne,
}

#[derive(Debug)]
pub(super) enum Range {
    List(ListField),
    Constants(Box<[Constant]>),
    /// A map's keys.
    Keys(ScoreField),
}
