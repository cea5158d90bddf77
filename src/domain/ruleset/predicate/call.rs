//! Functions, methods and macros.

use cel::common::ast::{CallExpr, Expr as Node, IdedExpr};

use super::MAX_MACRO_DEPTH;
use super::compile::{Compiled, Compiler, Name};
use super::time::{self, Instant, Part};
use super::tree::{
    BoolExpr, DoubleExpr, DurationExpr, Expr, IntExpr, Kind, ListExpr, Macro, Quantifier, Range, TextExpr,
    TimeExpr, UintExpr,
};
use crate::domain::ruleset::fields::Field;

/// What CEL has and this does not, with the reason.
fn unsupported(name: &str) -> Option<&'static str> {
    Some(match name {
        "matches" => "regular expressions have no bounded cost; use startsWith, endsWith, contains or ==",
        "map" | "filter" => "conditions build no lists; use all, exists or exists_one",
        "string" => "conditions format no text; compare the value itself",
        "bytes" => "no field holds bytes",
        "bool" => "there is nothing to convert to bool",
        "type" | "dyn" => "every field has a declared type",
        "transformList" | "transformMap" | "transformMapEntry" => "conditions build no lists and no maps",
        _ => return None,
    })
}

impl Compiler {
    pub(super) fn function(&mut self, node: &IdedExpr, call: &CallExpr) -> Compiled<Expr> {
        let name = call.func_name.as_str();
        match (name, call.target.as_deref(), call.args.as_slice()) {
            ("has", None, [field]) => self.has(field).map(Expr::Bool),
            ("size", None, [of]) | ("size", Some(of), []) => self.size(node, of),
            ("int" | "uint" | "double", None, [operand]) => self.conversion(node, name, operand),
            ("timestamp", None, [text]) => self.timestamp(node, text),
            ("duration", None, [text]) => self.duration(node, text),
            ("startsWith" | "endsWith" | "contains", Some(text), [other]) => {
                let what = format!("`{name}`");
                let pair = Box::new((self.text(text, &what)?, self.text(other, &what)?));
                Ok(Expr::Bool(match name {
                    "startsWith" => BoolExpr::StartsWith(pair),
                    "endsWith" => BoolExpr::EndsWith(pair),
                    _ => BoolExpr::Contains(pair),
                }))
            }
            ("all", Some(range), [variable, body]) => {
                self.quantified(node, Quantifier::All, range, variable, body)
            }
            ("exists", Some(range), [variable, body]) => {
                self.quantified(node, Quantifier::Exists, range, variable, body)
            }
            ("exists_one" | "existsOne", Some(range), [variable, body]) => {
                self.quantified(node, Quantifier::ExistsOne, range, variable, body)
            }
            (_, Some(target), arguments) if Part::named(name).is_some() => {
                self.getter(node, name, target, arguments)
            }
            _ => self.no_such_function(node, call),
        }
    }

    fn no_such_function<T>(&self, node: &IdedExpr, call: &CallExpr) -> Compiled<T> {
        let name = &call.func_name;
        if let Some(reason) = unsupported(name) {
            return self.refuse(node, format!("`{name}` is not supported: {reason}"));
        }
        let usage = match name.as_str() {
            "has" => "has(profile.last_order)",
            "size" => "size(profile.segments)",
            "int" | "uint" | "double" => "double(profile.orders)",
            "timestamp" => "timestamp(\"2026-02-28T09:30:00Z\")",
            "duration" => "duration(\"36h\")",
            "startsWith" | "endsWith" | "contains" => "request.locale.startsWith(\"de\")",
            "all" | "exists" | "exists_one" | "existsOne" => "profile.segments.exists(s, s == \"vip\")",
            _ if Part::named(name).is_some() => "now.getHours()",
            _ => return self.refuse(node, format!("unknown function `{name}`")),
        };
        self.refuse(node, format!("`{name}` is written as in `{usage}`"))
    }

    fn text(&mut self, node: &IdedExpr, what: &str) -> Compiled<TextExpr> {
        match self.expression(node)? {
            Expr::Text(text) => Ok(text),
            other => self.refuse(
                node,
                format!("{what} takes strings, this is a {}", other.kind().name()),
            ),
        }
    }

    fn has(&mut self, field: &IdedExpr) -> Compiled<BoolExpr> {
        let path = match &field.expr {
            Node::Select(_) => self.path(field),
            _ => None,
        };
        let Some(path) = path else {
            return self.refuse(field, "has() takes a field, as in has(profile.last_order)");
        };
        Ok(match self.name(field, &path)? {
            Name::Field(Field::TextField(field)) => BoolExpr::HasText(field),
            Name::Field(Field::TimeField(field)) => BoolExpr::HasTime(field),
            Name::Field(_) | Name::Group => BoolExpr::Constant(true),
            Name::Key(map, key) => BoolExpr::HasKey(map, key),
        })
    }

    fn size(&mut self, node: &IdedExpr, of: &IdedExpr) -> Compiled<Expr> {
        Ok(Expr::Int(match self.expression(of)? {
            Expr::Text(text) => IntExpr::TextSize(Box::new(text)),
            Expr::List(ListExpr::Field(field)) => IntExpr::ListSize(field),
            Expr::List(ListExpr::Constants(_, list)) => {
                IntExpr::Constant(i64::try_from(list.len()).unwrap_or(i64::MAX))
            }
            Expr::Scores(map) => IntExpr::ScoresSize(map),
            other => return self.refuse(node, format!("a {} has no size", other.kind().name())),
        }))
    }

    fn conversion(&mut self, node: &IdedExpr, to: &str, operand: &IdedExpr) -> Compiled<Expr> {
        Ok(match (to, self.expression(operand)?) {
            ("int", same @ Expr::Int(_))
            | ("uint", same @ Expr::Uint(_))
            | ("double", same @ Expr::Double(_)) => same,
            ("int", Expr::Uint(e)) => Expr::Int(IntExpr::FromUint(Box::new(e))),
            ("int", Expr::Double(e)) => Expr::Int(IntExpr::FromDouble(Box::new(e))),
            ("int", Expr::Time(e)) => Expr::Int(IntExpr::FromTime(Box::new(e))),
            ("uint", Expr::Int(e)) => Expr::Uint(UintExpr::FromInt(Box::new(e))),
            ("uint", Expr::Double(e)) => Expr::Uint(UintExpr::FromDouble(Box::new(e))),
            ("double", Expr::Int(e)) => Expr::Double(DoubleExpr::FromInt(Box::new(e))),
            ("double", Expr::Uint(e)) => Expr::Double(DoubleExpr::FromUint(Box::new(e))),
            (_, Expr::Text(_)) => {
                return self.refuse(
                    node,
                    format!("{to}() of a string is not supported: no field holds a number as text"),
                );
            }
            (_, other) => {
                return self.refuse(node, format!("{to}() cannot convert a {}", other.kind().name()));
            }
        })
    }

    fn timestamp(&mut self, node: &IdedExpr, operand: &IdedExpr) -> Compiled<Expr> {
        let instant = match self.expression(operand)? {
            same @ Expr::Time(_) => return Ok(same),
            Expr::Text(TextExpr::Constant(text)) => time::parse_timestamp(&text).ok_or_else(|| {
                format!("`{text}` is not a timestamp: RFC 3339 is wanted, as in 2026-02-28T09:30:00Z")
            }),
            Expr::Int(IntExpr::Constant(seconds)) => Instant::from_seconds(seconds)
                .map_err(|_| "timestamps end with the years 1 and 9999".to_owned()),
            other => Err(format!(
                "timestamp() takes a literal here, not a {} to evaluate",
                other.kind().name()
            )),
        };
        match instant {
            Ok(instant) => Ok(Expr::Time(TimeExpr::Constant(instant))),
            Err(message) => self.refuse(node, message),
        }
    }

    fn duration(&mut self, node: &IdedExpr, operand: &IdedExpr) -> Compiled<Expr> {
        let nanos = match self.expression(operand)? {
            same @ Expr::Duration(_) => return Ok(same),
            Expr::Text(TextExpr::Constant(text)) => time::parse_duration(&text).ok_or_else(|| {
                format!("`{text}` is not a duration of at most 292 years: its units are h, m, s, ms, us and ns, as in 36h or 1h30m")
            }),
            other => Err(format!("duration() takes a literal here, not a {} to evaluate", other.kind().name())),
        };
        match nanos {
            Ok(nanos) => Ok(Expr::Duration(DurationExpr::Constant(nanos))),
            Err(message) => self.refuse(node, message),
        }
    }

    fn getter(
        &mut self,
        node: &IdedExpr,
        name: &str,
        target: &IdedExpr,
        arguments: &[IdedExpr],
    ) -> Compiled<Expr> {
        let Some(part) = Part::named(name) else {
            return self.refuse(node, format!("unknown function `{name}`"));
        };
        match (self.expression(target)?, arguments) {
            (Expr::Time(operand), []) => Ok(Expr::Int(IntExpr::TimePart(part, 0, Box::new(operand)))),
            (Expr::Time(operand), [zone]) => {
                let Expr::Text(TextExpr::Constant(text)) = self.expression(zone)? else {
                    return self.refuse(zone, "the time zone must be a literal such as \"+01:00\"");
                };
                let Some(offset) = time::parse_offset(&text) else {
                    let message = format!(
                        "the time zone `{text}` is not supported: give a fixed offset such as \"+01:00\", or \"UTC\""
                    );
                    return self.refuse(zone, message);
                };
                Ok(Expr::Int(IntExpr::TimePart(part, offset, Box::new(operand))))
            }
            (Expr::Duration(operand), []) => {
                let unit = match part {
                    Part::Hours => 3_600_000_000_000,
                    Part::Minutes => 60_000_000_000,
                    Part::Seconds => 1_000_000_000,
                    Part::Milliseconds => {
                        let reason = "CEL's implementations disagree on what it means";
                        return self
                            .refuse(node, format!("`{name}` of a duration is not supported: {reason}"));
                    }
                    _ => return self.refuse(node, format!("a duration has no `{name}`")),
                };
                Ok(Expr::Int(IntExpr::DurationIn(unit, Box::new(operand))))
            }
            (other, []) => self.refuse(node, format!("a {} has no `{name}`", other.kind().name())),
            _ => self.refuse(node, format!("`{name}` takes at most a time zone")),
        }
    }

    fn quantified(
        &mut self,
        node: &IdedExpr,
        quantifier: Quantifier,
        range: &IdedExpr,
        variable: &IdedExpr,
        body: &IdedExpr,
    ) -> Compiled<Expr> {
        let (range, kind) = match self.expression(range)? {
            Expr::Scores(map) => (Range::Keys(map), Kind::Text),
            Expr::List(ListExpr::Field(field)) => (Range::List(field), Kind::Text),
            Expr::List(ListExpr::Constants(Some(kind), list)) => (Range::Constants(list), kind),
            Expr::List(ListExpr::Constants(None, _)) => return self.refuse(range, "the list is empty"),
            other => return self.refuse(range, format!("a {} has no elements", other.kind().name())),
        };
        let Node::Ident(name) = &variable.expr else {
            return self.refuse(variable, "the variable must be a simple name");
        };
        if name.starts_with('.') || matches!(name.as_str(), "profile" | "request" | "now") {
            return self.refuse(variable, format!("`{name}` cannot be the name of a variable"));
        }
        if self.variables.len() >= MAX_MACRO_DEPTH {
            return self.refuse(
                node,
                format!("all, exists and exists_one nest at most {MAX_MACRO_DEPTH} deep"),
            );
        }
        self.variables.push((name.clone(), kind));
        let body = self.bool(body, "what all, exists or exists_one test");
        self.variables.pop();
        Ok(Expr::Bool(BoolExpr::Macro(Box::new(Macro {
            quantifier,
            range,
            body: body?,
        }))))
    }
}
