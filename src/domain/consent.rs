//! Consent: what a shopper allowed, and how several statements about it combine.
//!
//! - A purpose that was never stated is *unstated*: the deployment's default decides.
//! - Unreadable consent counts as denied (invariant 6).
//! - Statements are ordered by `received_at`; on a tie denied wins. An import can only reduce consent.

use serde::{Deserialize, Serialize};

use super::ids::Timestamp;
use super::json::{Reader, Value};

/// What is allowed for one purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Choice {
    Granted,
    /// Greater than `Granted`, so that denied wins ties.
    Denied,
}

/// One statement, as an event or a request carries it. `None` is unstated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ConsentStatement {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub analytics: Option<Choice>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub personalization: Option<Choice>,
}

impl ConsentStatement {
    pub const DENIED: ConsentStatement = ConsentStatement {
        analytics: Some(Choice::Denied),
        personalization: Some(Choice::Denied),
    };

    pub fn is_unstated(&self) -> bool {
        self.analytics.is_none() && self.personalization.is_none()
    }

    /// Reads `analytics:granted,personalization:denied`, as query parameters carry it. Other purposes are passed
    /// over; what can't be read counts as denied.
    pub fn parse_list(text: &str) -> ConsentStatement {
        let mut statement = ConsentStatement::default();
        for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            let Some((purpose, choice)) = item.split_once(':') else {
                return ConsentStatement::DENIED;
            };
            statement.state(purpose.trim(), Some(read_word(choice.trim())));
        }
        statement
    }

    /// Reads the JSON of an event's `consent`: an object of purposes (`"granted"`, `"denied"`, or a boolean), at the
    /// top or under `categoryPreferences` as Segment's consent manager sends it, or text as in
    /// [`ConsentStatement::parse_list`]. `null` is unstated; what can't be read counts as denied.
    pub fn read_json(json: &str) -> ConsentStatement {
        let mut reader = Reader::new(json);
        let mut statement = ConsentStatement::default();
        match reader.value() {
            Ok(Value::Null) => statement,
            Ok(Value::Text(text)) => ConsentStatement::parse_list(&text.decode()),
            Ok(Value::Object) => match statement.read_members(&mut reader) {
                Some(()) => statement,
                None => ConsentStatement::DENIED,
            },
            _ => ConsentStatement::DENIED,
        }
    }

    fn read_members(&mut self, reader: &mut Reader<'_>) -> Option<()> {
        let mut first = true;
        while let Some(key) = reader.key(&mut first).ok()? {
            match &*key.decode() {
                "categoryPreferences" | "category_preferences" => match reader.value().ok()? {
                    Value::Object => self.read_purposes(reader)?,
                    _ => return None,
                },
                purpose => self.read_purpose(purpose, reader)?,
            }
        }
        Some(())
    }

    fn read_purposes(&mut self, reader: &mut Reader<'_>) -> Option<()> {
        let mut first = true;
        while let Some(key) = reader.key(&mut first).ok()? {
            self.read_purpose(&key.decode(), reader)?;
        }
        Some(())
    }

    fn read_purpose(&mut self, purpose: &str, reader: &mut Reader<'_>) -> Option<()> {
        let value = reader.skip().ok()?;
        let choice = match Reader::new(value).value().ok()? {
            Value::Null => None,
            Value::Bool(true) => Some(Choice::Granted),
            Value::Text(text) => Some(read_word(&text.decode())),
            _ => Some(Choice::Denied),
        };
        self.state(purpose, choice);
        Some(())
    }

    /// Of two statements about one purpose, denied wins.
    fn state(&mut self, purpose: &str, choice: Option<Choice>) {
        if purpose.eq_ignore_ascii_case("analytics") {
            self.analytics = self.analytics.max(choice);
        } else if purpose.eq_ignore_ascii_case("personalization")
            || purpose.eq_ignore_ascii_case("personalisation")
        {
            self.personalization = self.personalization.max(choice);
        }
    }
}

fn read_word(word: &str) -> Choice {
    if word.eq_ignore_ascii_case("granted") {
        Choice::Granted
    } else {
        Choice::Denied
    }
}

/// The latest statement about one purpose: a join-semilattice by `(received_at, choice)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Stated {
    pub received_at: Timestamp,
    pub choice: Choice,
}

/// The consent a profile part remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Consent {
    pub analytics: Option<Stated>,
    pub personalization: Option<Stated>,
}

impl Consent {
    /// Whether personalization is allowed, where `default` holds for the unstated.
    pub fn allows_personalization(&self, default: Choice) -> bool {
        self.personalization.map_or(default, |stated| stated.choice) == Choice::Granted
    }

    /// Whether analytics is allowed, where `default` holds for the unstated.
    pub fn allows_analytics(&self, default: Choice) -> bool {
        self.analytics.map_or(default, |stated| stated.choice) == Choice::Granted
    }

    /// Keeps the later statement of each purpose.
    pub fn merge(&mut self, other: &Consent) {
        self.analytics = self.analytics.max(other.analytics);
        self.personalization = self.personalization.max(other.personalization);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const G: Option<Choice> = Some(Choice::Granted);
    const D: Option<Choice> = Some(Choice::Denied);

    #[test]
    fn what_cannot_be_read_counts_as_denied() {
        for (json, analytics, personalization) in [
            ("null", None, None),
            ("{}", None, None),
            (r#"{"marketing":false}"#, None, None),
            (r#"{"analytics":"granted"}"#, G, None),
            (r#"{"analytics":true,"personalization":false}"#, G, D),
            (r#"{"analytics":"yes","personalization":null}"#, D, None),
            (r#"{"analytics":1}"#, D, None),
            (r#"{"analytics":"granted","analytics":"denied"}"#, D, None),
            (
                r#"{"categoryPreferences":{"Analytics":true,"Personalization":false}}"#,
                G,
                D,
            ),
            (r#"{"categoryPreferences":"all"}"#, D, D),
            (r#""analytics:granted,personalization:denied""#, G, D),
            (r#""nonsense""#, D, D),
            ("true", D, D),
            ("[]", D, D),
            ("7", D, D),
        ] {
            let read = ConsentStatement::read_json(json);
            assert_eq!(
                (read.analytics, read.personalization),
                (analytics, personalization),
                "{json}"
            );
        }
    }

    #[test]
    fn later_statements_win_and_denied_wins_ties() {
        let stated = |ms, choice| {
            Some(Stated {
                received_at: Timestamp(ms),
                choice,
            })
        };
        let mut consent = Consent {
            analytics: stated(1, Choice::Denied),
            personalization: None,
        };
        consent.merge(&Consent {
            analytics: stated(2, Choice::Granted),
            personalization: None,
        });
        assert_eq!(consent.analytics, stated(2, Choice::Granted));
        consent.merge(&Consent {
            analytics: stated(2, Choice::Denied),
            personalization: None,
        });
        assert_eq!(consent.analytics, stated(2, Choice::Denied));
    }
}
