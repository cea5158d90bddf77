//! From the parser's syntax tree to ours: literals, names and the walk; operators and calls have files of
//! their own. Every refusal names what was written and where.

use std::panic::{AssertUnwindSafe, catch_unwind};

use cel::common::ast::{
    CallExpr, Expr as Node, IdedExpr, ListExpr as ListNode, LiteralValue, SourceInfo, operators,
};

use crate::domain::ruleset::fields::{self, Field, ScoreField};

use super::number::Number;
use super::tree::{
    BoolExpr, Constant, Depth, DoubleExpr, DurationExpr, Expr, IntExpr, Kind, ListExpr, TextExpr, TimeExpr,
    UintExpr,
};
use super::{CompileError, MAX_DEPTH, operator};

pub(super) type Compiled<T> = Result<T, CompileError>;

/// The condition's tree, and whether it reads the profile.
pub(super) fn compile(source: &str) -> Compiled<(BoolExpr, bool)> {
    let (root, positions) = parse(source)?;
    let mut compiler = Compiler {
        positions,
        variables: Vec::new(),
        uses_profile: false,
    };
    match compiler.expression(&root)? {
        Expr::Bool(condition) => Ok((condition, compiler.uses_profile)),
        other => {
            let message = format!("a condition is true or false, this is a {}", other.kind().name());
            Err(CompileError::at(compiler.offset(&root), message))
        }
    }
}

/// Runs the crate's parser, without its macros, so that `has` and `exists` arrive as they were written.
///
/// The bounds keep it within any thread's stack. It is kept from unwinding further, too: it was not written for
/// hostile input, and a ruleset must not be able to take a node down.
fn parse(source: &str) -> Compiled<(IdedExpr, SourceInfo)> {
    let parser = cel::Env::default().with_optional_support(false).parser();
    // A level of brackets is one level of the parser's, and so is each side of `?:`.
    let parser = parser.max_recursion_depth(4 * MAX_DEPTH as u16);
    let parsed = catch_unwind(AssertUnwindSafe(|| parser.parse_with_source_info(source)));
    match parsed {
        Ok(Ok(parsed)) => Ok(parsed),
        Ok(Err(errors)) => {
            let Some(first) = errors.errors.first() else {
                return Err(CompileError::at(None, "not CEL"));
            };
            // What the grammar would have allowed there is a long list that helps nobody.
            let message = first.msg.split(" expecting ").next().unwrap_or_default();
            let message = message.strip_prefix("Syntax error: ").unwrap_or(message);
            Err(CompileError::at(
                byte_offset(source, first.pos),
                format!("not CEL: {message}"),
            ))
        }
        Err(_) => Err(CompileError::at(None, "not CEL: the parser gave up")),
    }
}

/// The offset of a line and a column of characters, both from 1; the parser gives 0 where it has none.
fn byte_offset(source: &str, (line, column): (isize, isize)) -> Option<usize> {
    let line_index = usize::try_from(line).ok()?.checked_sub(1)?;
    let column_index = usize::try_from(column).ok()?.checked_sub(1)?;
    let start: usize = source.split_inclusive('\n').take(line_index).map(str::len).sum();
    let rest = source.get(start..)?;
    Some(
        start
            + rest
                .char_indices()
                .nth(column_index)
                .map_or(rest.len(), |(at, _)| at),
    )
}

pub(super) struct Compiler {
    positions: SourceInfo,
    /// Bound by the macros around, the innermost last.
    pub(super) variables: Vec<(String, Kind)>,
    uses_profile: bool,
}

/// What a path such as `profile.cart.total` stands for.
pub(super) enum Name {
    Field(Field),
    /// `profile.categories.shoes`
    Key(ScoreField, Box<str>),
    /// `profile.cart`
    Group,
}

impl Compiler {
    pub(super) fn offset(&self, node: &IdedExpr) -> Option<usize> {
        self.positions
            .offset_for(node.id)
            .and_then(|(start, _)| usize::try_from(start).ok())
    }

    pub(super) fn refuse<T>(&self, node: &IdedExpr, message: impl Into<String>) -> Compiled<T> {
        Err(CompileError::at(self.offset(node), message))
    }

    pub(super) fn expression(&mut self, node: &IdedExpr) -> Compiled<Expr> {
        match &node.expr {
            Node::Literal(literal) => self.literal(node, literal),
            Node::Ident(name) => self.identifier(node, name),
            Node::Select(select) => match self.path(node) {
                Some(path) => self.named(node, &path),
                None => self.refuse(
                    node,
                    format!("`.{}` can only follow the name of a field", select.field),
                ),
            },
            Node::List(list) => self.list(list),
            Node::Call(call) => self.call(node, call),
            Node::Map(_) => self.refuse(node, "map literals are not supported"),
            Node::Struct(literal) => self.refuse(
                node,
                format!(
                    "message literals such as `{}{{}}` are not supported",
                    literal.type_name
                ),
            ),
            Node::Comprehension(_) | Node::Unspecified => {
                self.refuse(node, "this expression is not supported")
            }
        }
    }

    pub(super) fn bool(&mut self, node: &IdedExpr, what: &str) -> Compiled<BoolExpr> {
        match self.expression(node)? {
            Expr::Bool(condition) => Ok(condition),
            other => self.refuse(
                node,
                format!("{what} must be a bool, this is a {}", other.kind().name()),
            ),
        }
    }

    fn literal(&self, node: &IdedExpr, literal: &LiteralValue) -> Compiled<Expr> {
        Ok(match literal {
            LiteralValue::Boolean(value) => Expr::Bool(BoolExpr::Constant(*value.inner())),
            LiteralValue::Int(value) => Expr::Int(IntExpr::Constant(*value.inner())),
            LiteralValue::UInt(value) => Expr::Uint(UintExpr::Constant(*value.inner())),
            LiteralValue::Double(value) => Expr::Double(DoubleExpr::Constant(*value.inner())),
            LiteralValue::String(text) => Expr::Text(TextExpr::Constant(text.inner().into())),
            LiteralValue::Bytes(_) => {
                return self.refuse(node, "`bytes` are not supported: no field holds any");
            }
            LiteralValue::Null => {
                return self.refuse(
                    node,
                    "`null` is not supported: no field is null, ask has(…) whether one is there",
                );
            }
        })
    }

    fn identifier(&mut self, node: &IdedExpr, name: &str) -> Compiled<Expr> {
        let bound = self
            .variables
            .iter()
            .rev()
            .position(|(variable, _)| variable == name);
        let Some((distance, (_, kind))) =
            bound.and_then(|at| Some((at, self.variables.iter().rev().nth(at)?)))
        else {
            return self.named(node, name);
        };
        let depth = Depth::try_from(distance).unwrap_or(Depth::MAX);
        Ok(match kind {
            Kind::Bool => Expr::Bool(BoolExpr::Variable(depth)),
            Kind::Int => Expr::Int(IntExpr::Variable(depth)),
            Kind::Uint => Expr::Uint(UintExpr::Variable(depth)),
            Kind::Double => Expr::Double(DoubleExpr::Variable(depth)),
            Kind::Text => Expr::Text(TextExpr::Variable(depth)),
            Kind::Time => Expr::Time(TimeExpr::Variable(depth)),
            Kind::Duration => Expr::Duration(DurationExpr::Variable(depth)),
            Kind::List | Kind::Scores => return self.refuse(node, format!("`{name}` cannot be a variable")),
        })
    }

    /// `a.b.c`, where nothing but names and points was written and `a` is no variable.
    pub(super) fn path(&self, node: &IdedExpr) -> Option<String> {
        match &node.expr {
            Node::Ident(name) if !self.variables.iter().any(|(variable, _)| variable == name) => {
                Some(name.clone())
            }
            Node::Select(select) if !select.test => {
                Some(format!("{}.{}", self.path(&select.operand)?, select.field))
            }
            _ => None,
        }
    }

    fn named(&mut self, node: &IdedExpr, path: &str) -> Compiled<Expr> {
        match self.name(node, path)? {
            Name::Field(field) => Ok(match field {
                Field::BoolField(field) => Expr::Bool(BoolExpr::Field(field)),
                Field::IntField(field) => Expr::Int(IntExpr::Field(field)),
                Field::DoubleField(field) => Expr::Double(DoubleExpr::Field(field)),
                Field::TextField(field) => Expr::Text(TextExpr::Field(field)),
                Field::TimeField(field) => Expr::Time(TimeExpr::Field(field)),
                Field::NowField(field) => Expr::Time(TimeExpr::Now(field)),
                Field::ListField(field) => Expr::List(ListExpr::Field(field)),
                Field::ScoreField(field) => Expr::Scores(field),
            }),
            Name::Key(map, key) => Ok(Expr::Double(DoubleExpr::Score(map, key))),
            Name::Group => self.refuse(node, format!("`{path}` is not a value: name one of its fields")),
        }
    }

    /// # Errors
    /// There is no such field.
    pub(super) fn name(&mut self, node: &IdedExpr, path: &str) -> Compiled<Name> {
        self.uses_profile |= path.starts_with("profile");
        if let Some(field) = fields::find(path) {
            return Ok(Name::Field(field));
        }
        if fields::is_group(path) {
            return Ok(Name::Group);
        }
        if let Some((owner, key)) = path.rsplit_once('.') {
            match fields::find(owner) {
                Some(Field::ScoreField(map)) => return Ok(Name::Key(map, key.into())),
                Some(_) => {
                    return self.refuse(node, format!("`{owner}` has no fields, so there is no `{path}`"));
                }
                None => {}
            }
        }
        if !path.contains('.') {
            return self.refuse(
                node,
                format!("unknown name `{path}`: a condition sees `profile`, `request` and `now`"),
            );
        }
        match fields::nearest(path) {
            Some(near) => self.refuse(node, format!("unknown field `{path}`; did you mean `{near}`?")),
            None => self.refuse(node, format!("unknown field `{path}`")),
        }
    }

    /// A list of constants of one type.
    fn list(&mut self, list: &ListNode) -> Compiled<Expr> {
        let mut of: Option<Kind> = None;
        let mut constants = Vec::with_capacity(list.elements.len());
        for element in &list.elements {
            let expression = self.expression(element)?;
            let kind = expression.kind();
            let Some(constant) = constant(expression) else {
                return self.refuse(element, "the elements of a list must be literals");
            };
            match of {
                Some(other) if other != kind => {
                    let (first, this) = (other.name(), kind.name());
                    return self.refuse(
                        element,
                        format!("a list of {first} elements cannot hold a {this}"),
                    );
                }
                _ => of = Some(kind),
            }
            constants.push(constant);
        }
        Ok(Expr::List(ListExpr::Constants(of, constants.into())))
    }

    fn call(&mut self, node: &IdedExpr, call: &CallExpr) -> Compiled<Expr> {
        let symbol = call.func_name.trim_matches('_');
        match (call.func_name.as_str(), call.args.as_slice()) {
            (operators::LOGICAL_AND | operators::LOGICAL_OR, [left, right]) => {
                let what = format!("an operand of `{symbol}`");
                let operands = (self.bool(left, &what)?, self.bool(right, &what)?);
                Ok(Expr::Bool(operator::logical(symbol == "&&", operands)))
            }
            (operators::LOGICAL_NOT, [operand]) => Ok(Expr::Bool(BoolExpr::Not(Box::new(
                self.bool(operand, "the operand of `!`")?,
            )))),
            (operators::NEGATE, [operand]) => {
                let operand = self.expression(operand)?;
                operator::negate(operand).or_else(|message| self.refuse(node, message))
            }
            (operators::CONDITIONAL, [condition, then, otherwise]) => {
                let condition = self.bool(condition, "what stands before `?`")?;
                let branches = (self.expression(then)?, self.expression(otherwise)?);
                operator::choose(condition, branches).or_else(|message| self.refuse(node, message))
            }
            (operators::INDEX, [container, index]) => {
                let operands = (self.expression(container)?, self.expression(index)?);
                operator::index(operands).or_else(|message| self.refuse(node, message))
            }
            (operators::IN, [needle, container]) => {
                let operands = (self.expression(needle)?, self.expression(container)?);
                operator::contains(operands).or_else(|message| self.refuse(node, message))
            }
            (_, [left, right]) if call.target.is_none() && operator::is_binary(symbol) => {
                let operands = (self.expression(left)?, self.expression(right)?);
                operator::binary(symbol, operands).or_else(|message| self.refuse(node, message))
            }
            _ => self.function(node, call),
        }
    }
}

fn constant(expression: Expr) -> Option<Constant> {
    Some(match expression {
        Expr::Bool(BoolExpr::Constant(value)) => Constant::Bool(value),
        Expr::Int(IntExpr::Constant(value)) => Constant::Number(Number::Int(value)),
        Expr::Uint(UintExpr::Constant(value)) => Constant::Number(Number::Uint(value)),
        Expr::Double(DoubleExpr::Constant(value)) => Constant::Number(Number::Double(value)),
        Expr::Text(TextExpr::Constant(text)) => Constant::Text(text),
        Expr::Time(TimeExpr::Constant(instant)) => Constant::Time(instant),
        Expr::Duration(DurationExpr::Constant(nanos)) => Constant::Duration(nanos),
        _ => return None,
    })
}
