//! From stored events to the sessions that a [`super::sessions::SessionIndex`] is built from.
//!
//! A session is what one `session_id` touched; without one, what one shopper touched on one day, or, of an order, the order. The
//! latter is what an imported history consists of: baskets.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use foldhash::fast::FixedState;

use super::sessions::Interaction;
use crate::domain::ids::Timestamp;
use crate::domain::transform::items_touched;

/// The events that touch items.
pub const TOUCHING: [&str; 6] = [
    "Product Viewed",
    "Product Clicked",
    "Product Added",
    "Product Added to Wishlist",
    "Wishlist Product Added to Cart",
    "Order Completed",
];

/// A stored event, of [`TOUCHING`].
#[derive(Debug, Clone, Copy)]
pub struct Touch<'a> {
    pub event: &'a str,
    pub event_id: &'a str,
    /// The pseudonym of the session.
    pub session: Option<&'a str>,
    /// The pseudonym of the shopper.
    pub subject: Option<&'a str>,
    pub at: Timestamp,
    /// As in [`crate::domain::event::Event::body`].
    pub body: &'a str,
}

/// Gathers interactions from events, the newest first. The same events in the same order give the same numbers.
#[derive(Debug, Default)]
pub struct Gathering {
    interactions: Vec<Interaction>,
    sessions: HashMap<Box<str>, u64, FixedState>,
    /// Each name once.
    items: HashSet<Arc<str>, FixedState>,
}

impl Gathering {
    pub fn add(&mut self, touch: &Touch<'_>) {
        let items = items_touched(touch.event, touch.body);
        if items.is_empty() {
            return;
        }
        let key: Box<str> = match (touch.session, touch.subject) {
            (Some(session), _) => session.into(),
            (None, _) if items.len() > 1 => touch.event_id.into(),
            (None, Some(subject)) => format!("{subject} {}", touch.at.day()).into(),
            // Whoever denied analytics has no session.
            (None, None) => return,
        };
        let next = self.sessions.len() as u64;
        let session = *self.sessions.entry(key).or_insert(next);
        // The last first, as the events come.
        for item in items.into_iter().rev() {
            let item = match self.items.get(&*item) {
                Some(known) => Arc::clone(known),
                None => {
                    self.items.insert(Arc::clone(&item));
                    item
                }
            };
            self.interactions.push(Interaction {
                session,
                item,
                at: touch.at.0,
            });
        }
    }

    /// The oldest first, so that of equal times the later one counts as later.
    pub fn finish(mut self) -> Vec<Interaction> {
        self.interactions.reverse();
        self.interactions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_fall_into_sessions() {
        let mut gathering = Gathering::default();
        let mut add =
            |event: &str, id: &str, session: Option<&str>, subject: Option<&str>, day: i64, body: &str| {
                gathering.add(&Touch {
                    event,
                    event_id: id,
                    session,
                    subject,
                    at: Timestamp(day * 86_400_000),
                    body: &format!(r#"{{"properties":{{{body}}}}}"#),
                });
            };
        add("Product Viewed", "1", Some("s"), Some("a"), 1, r#""sku":"tea""#);
        add(
            "product added",
            "2",
            Some("s"),
            Some("u"),
            2,
            r#""product_id":22423"#,
        );
        add("Product Viewed", "3", None, Some("a"), 1, r#""sku":"cup""#);
        add("Product Viewed", "4", None, Some("a"), 1, r#""sku":"tea""#);
        add("Product Viewed", "5", None, Some("a"), 2, r#""sku":"tea""#);
        let order = r#""order_id":"o","currency":"GBP","products":[{"sku":"tea","price":1,"quantity":1},{"sku":"cup","price":1,"quantity":1},
            {"sku":"POST","category":"charge","price":1,"quantity":1}]"#;
        add("Order Completed", "6", None, Some("a"), 2, order);
        // Nobody, nothing, and nothing that touches.
        add("Product Viewed", "7", None, None, 1, r#""sku":"tea""#);
        add("Product Viewed", "8", Some("s"), None, 1, "");
        add(
            "Product List Viewed",
            "9",
            Some("s"),
            None,
            1,
            r#""products":[{"sku":"tea"}]"#,
        );
        add("Whatever", "10", Some("s"), None, 1, r#""sku":"tea""#);
        let gathered: Vec<(u64, String, i64)> = gathering
            .finish()
            .into_iter()
            .rev()
            .map(|one| (one.session, one.item.to_string(), one.at / 86_400_000))
            .collect();
        let expected = [
            (0, "tea", 1),
            (0, "22423", 2),
            (1, "cup", 1),
            (1, "tea", 1),
            (2, "tea", 2),
            (3, "cup", 2),
            (3, "tea", 2),
        ];
        assert_eq!(
            gathered,
            expected.map(|(session, item, day)| (session, item.to_owned(), day))
        );
    }
}
