//! The facts a condition may speak of, and the one table that declares them.
//!
//! - [`Facts`] borrows everything: the caller builds it on the stack from a profile and a request, once per
//!   answer, without copying a string. It is `Copy`.
//! - [`declared`] is the list conditions are checked against; `docs/conditions.md` holds the same list for
//!   people, and a test compares the two.
//! - A field that can be absent is an `Option` here and CEL's *no such key* in a condition; `has()` asks.
//!   All other fields always have a value (0, false, empty).
//! - Nothing here decides what a field means; the profile and the request do.

use std::sync::Arc;

use crate::domain::ids::Timestamp;

/// All that a condition can see.
#[derive(Debug, Clone, Copy, Default)]
pub struct Facts<'a> {
    pub now: Timestamp,
    pub profile: ProfileFacts<'a>,
    pub request: RequestFacts<'a>,
}

/// What is known of the shopper. The default is a shopper of whom nothing is known.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProfileFacts<'a> {
    pub known: bool,
    pub segments: StringList<'a>,
    pub orders: i64,
    pub cancelled: i64,
    /// Major units of the shop's currency.
    pub revenue: f64,
    /// Major units of the shop's currency; 0 without orders.
    pub average_order_value: f64,
    pub refunds: i64,
    pub events: i64,
    pub first_seen: Option<Timestamp>,
    pub last_seen: Option<Timestamp>,
    pub last_order: Option<Timestamp>,
    /// From 1; 0 outside the checkout.
    pub checkout_step: i64,
    pub items: ScoreMap<'a>,
    pub categories: ScoreMap<'a>,
    pub payment_methods: ScoreMap<'a>,
    pub shipping_methods: ScoreMap<'a>,
    pub devices: ScoreMap<'a>,
    /// The latest first.
    pub recent_items: StringList<'a>,
    pub cart: CartFacts<'a>,
}

/// What this request says.
#[derive(Debug, Clone, Copy, Default)]
pub struct RequestFacts<'a> {
    pub cart: CartFacts<'a>,
    pub currency: Option<&'a str>,
    pub country: Option<&'a str>,
    pub locale: Option<&'a str>,
    pub device: Option<&'a str>,
}

/// A cart: no cart is an empty one.
#[derive(Debug, Clone, Copy, Default)]
pub struct CartFacts<'a> {
    /// Major units of the shop's currency.
    pub total: f64,
    /// Pieces, not lines.
    pub count: i64,
    pub items: StringList<'a>,
}

/// A borrowed list of strings, in whichever of two shapes its owner keeps.
#[derive(Debug, Clone, Copy)]
pub struct StringList<'a>(Strings<'a>);

#[derive(Debug, Clone, Copy)]
enum Strings<'a> {
    Borrowed(&'a [&'a str]),
    Shared(&'a [Arc<str>]),
}

impl<'a> StringList<'a> {
    pub fn len(&self) -> usize {
        match self.0 {
            Strings::Borrowed(list) => list.len(),
            Strings::Shared(list) => list.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn get(&self, index: usize) -> Option<&'a str> {
        match self.0 {
            Strings::Borrowed(list) => list.get(index).copied(),
            Strings::Shared(list) => list.get(index).map(AsRef::as_ref),
        }
    }

    pub fn contains(&self, text: &str) -> bool {
        match self.0 {
            Strings::Borrowed(list) => list.contains(&text),
            Strings::Shared(list) => list.iter().any(|item| item.as_ref() == text),
        }
    }
}

impl Default for StringList<'_> {
    fn default() -> Self {
        StringList(Strings::Borrowed(&[]))
    }
}

impl<'a> From<&'a [&'a str]> for StringList<'a> {
    fn from(list: &'a [&'a str]) -> Self {
        StringList(Strings::Borrowed(list))
    }
}

impl<'a> From<&'a [Arc<str>]> for StringList<'a> {
    fn from(list: &'a [Arc<str>]) -> Self {
        StringList(Strings::Shared(list))
    }
}

/// A borrowed map from a name to its decayed score as of `now`. Bounded and small, so it is searched in order.
#[derive(Debug, Clone, Copy)]
pub struct ScoreMap<'a>(Scores<'a>);

#[derive(Debug, Clone, Copy)]
enum Scores<'a> {
    Borrowed(&'a [(&'a str, f64)]),
    Shared(&'a [(Arc<str>, f64)]),
}

impl<'a> ScoreMap<'a> {
    pub fn len(&self) -> usize {
        match self.0 {
            Scores::Borrowed(entries) => entries.len(),
            Scores::Shared(entries) => entries.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn get(&self, key: &str) -> Option<f64> {
        match self.0 {
            Scores::Borrowed(entries) => entries
                .iter()
                .find(|(name, _)| *name == key)
                .map(|(_, score)| *score),
            Scores::Shared(entries) => entries
                .iter()
                .find(|(name, _)| name.as_ref() == key)
                .map(|(_, score)| *score),
        }
    }

    /// The key at a position, in the owner's order.
    pub fn key(&self, index: usize) -> Option<&'a str> {
        match self.0 {
            Scores::Borrowed(entries) => entries.get(index).map(|(name, _)| *name),
            Scores::Shared(entries) => entries.get(index).map(|(name, _)| name.as_ref()),
        }
    }
}

impl Default for ScoreMap<'_> {
    fn default() -> Self {
        ScoreMap(Scores::Borrowed(&[]))
    }
}

impl<'a> From<&'a [(&'a str, f64)]> for ScoreMap<'a> {
    fn from(entries: &'a [(&'a str, f64)]) -> Self {
        ScoreMap(Scores::Borrowed(entries))
    }
}

impl<'a> From<&'a [(Arc<str>, f64)]> for ScoreMap<'a> {
    fn from(entries: &'a [(Arc<str>, f64)]) -> Self {
        ScoreMap(Scores::Shared(entries))
    }
}

/// Declares one enum per field type, how each is read, and the table of all of them.
macro_rules! fields {
    ($($(#[$doc:meta])* $name:ident: $kind:literal => $value:ty {
        $($variant:ident, $path:literal, $read:expr;)+
    })+) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, Copy, PartialEq, Eq)]
            #[allow(clippy::enum_variant_names, reason = "a variant is named as the path it reads")]
            pub(super) enum $name { $($variant,)+ }

            impl $name {
                #[inline]
                pub(super) fn read<'a>(self, facts: &Facts<'a>) -> $value {
                    match self {
                        $($name::$variant => {
                            let read: fn(&Facts<'a>) -> $value = $read;
                            read(facts)
                        })+
                    }
                }
            }
        )+

        /// A declared field, by the type of what it holds.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(clippy::enum_variant_names, reason = "a variant is named as the type it holds")]
        pub(super) enum Field { $($name($name),)+ }

        const DECLARED: &[(&str, Field, &str)] = &[
            $($(($path, Field::$name($name::$variant), $kind),)+)+
        ];
    };
}

fields! {
    BoolField: "bool" => bool {
        ProfileKnown, "profile.known", |f| f.profile.known;
    }
    IntField: "int" => i64 {
        ProfileOrders, "profile.orders", |f| f.profile.orders;
        ProfileCancelled, "profile.cancelled", |f| f.profile.cancelled;
        ProfileRefunds, "profile.refunds", |f| f.profile.refunds;
        ProfileEvents, "profile.events", |f| f.profile.events;
        ProfileCheckoutStep, "profile.checkout_step", |f| f.profile.checkout_step;
        ProfileCartCount, "profile.cart.count", |f| f.profile.cart.count;
        RequestCartCount, "request.cart.count", |f| f.request.cart.count;
    }
    DoubleField: "double" => f64 {
        ProfileRevenue, "profile.revenue", |f| f.profile.revenue;
        ProfileAverageOrderValue, "profile.average_order_value", |f| f.profile.average_order_value;
        ProfileCartTotal, "profile.cart.total", |f| f.profile.cart.total;
        RequestCartTotal, "request.cart.total", |f| f.request.cart.total;
    }
    TextField: "string, may be absent" => Option<&'a str> {
        RequestCurrency, "request.currency", |f| f.request.currency;
        RequestCountry, "request.country", |f| f.request.country;
        RequestLocale, "request.locale", |f| f.request.locale;
        RequestDevice, "request.device", |f| f.request.device;
    }
    TimeField: "timestamp, may be absent" => Option<Timestamp> {
        ProfileFirstSeen, "profile.first_seen", |f| f.profile.first_seen;
        ProfileLastSeen, "profile.last_seen", |f| f.profile.last_seen;
        ProfileLastOrder, "profile.last_order", |f| f.profile.last_order;
    }
    NowField: "timestamp" => Timestamp {
        Now, "now", |f| f.now;
    }
    ListField: "list<string>" => StringList<'a> {
        ProfileSegments, "profile.segments", |f| f.profile.segments;
        ProfileRecentItems, "profile.recent_items", |f| f.profile.recent_items;
        ProfileCartItems, "profile.cart.items", |f| f.profile.cart.items;
        RequestCartItems, "request.cart.items", |f| f.request.cart.items;
    }
    ScoreField: "map<string, double>" => ScoreMap<'a> {
        ProfileItems, "profile.items", |f| f.profile.items;
        ProfileCategories, "profile.categories", |f| f.profile.categories;
        ProfilePaymentMethods, "profile.payment_methods", |f| f.profile.payment_methods;
        ProfileShippingMethods, "profile.shipping_methods", |f| f.profile.shipping_methods;
        ProfileDevices, "profile.devices", |f| f.profile.devices;
    }
}

/// Every declared field with the name of its type.
pub fn declared() -> impl Iterator<Item = (&'static str, &'static str)> {
    DECLARED.iter().map(|(path, _, kind)| (*path, *kind))
}

pub(super) fn find(path: &str) -> Option<Field> {
    DECLARED
        .iter()
        .find(|(declared, _, _)| *declared == path)
        .map(|(_, field, _)| *field)
}

/// Whether `path` is the beginning of declared fields, as `profile` and `request.cart` are.
pub(super) fn is_group(path: &str) -> bool {
    DECLARED.iter().any(|(declared, _, _)| {
        declared
            .strip_prefix(path)
            .is_some_and(|rest| rest.starts_with('.'))
    })
}

/// The declared field whose name is nearest, where one is near enough to be a typing error.
pub(super) fn nearest(path: &str) -> Option<&'static str> {
    DECLARED
        .iter()
        .map(|(declared, _, _)| (edit_distance(path, declared), *declared))
        .min()
        .filter(|(distance, _)| *distance <= 3)
        .map(|(_, declared)| declared)
}

/// Levenshtein distance over bytes.
fn edit_distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, y) in row.iter_mut().skip(1).zip(b.bytes()) {
            let here = (diagonal + usize::from(x != y)).min(left + 1).min(*cell + 1);
            diagonal = *cell;
            *cell = here;
            left = here;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_declared_field_is_documented_with_its_type() {
        let page = include_str!("../../../docs/conditions.md");
        for (path, kind) in declared() {
            let row = page
                .lines()
                .find(|line| line.starts_with(&format!("| `{path}` |")));
            let row = row.unwrap_or_else(|| panic!("docs/conditions.md does not list {path}"));
            assert!(row.contains(&format!("| {kind} |")), "{row} should say {kind}");
        }
        let rows = page.lines().filter(|l| {
            ["profile", "request", "now"]
                .iter()
                .any(|p| l.starts_with(&format!("| `{p}")))
        });
        assert_eq!(
            rows.count(),
            declared().count(),
            "docs/conditions.md lists a field that is not declared"
        );
    }

    #[test]
    fn distance_counts_insertions_deletions_and_replacements() {
        for (a, b, distance) in [
            ("", "", 0),
            ("", "abc", 3),
            ("kitten", "sitting", 3),
            ("orders", "oders", 1),
        ] {
            assert_eq!(edit_distance(a, b), distance, "{a} {b}");
            assert_eq!(edit_distance(b, a), distance, "{b} {a}");
        }
    }
}
