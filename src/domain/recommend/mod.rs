//! Recommendations: what goes with the cart, from what is bought together, falling back to what is popular.
//!
//! - [`Population::build`] is pure: the same purchases give the same model, whatever the node.
//! - Two items are as similar as the cosine of their orders: `together / sqrt(orders of a · orders of b)`, from
//!   at least [`MIN_TOGETHER`] orders that hold both. Cosine rather than lift, which a handful of orders of two
//!   rare items drives to the top, and rather than confidence, which recommends the best-seller to everyone.
//! - The model also holds what share of the orders was paid and shipped in which way, for the rankings.
//! - Bounded: [`MAX_ITEMS`] items with [`MAX_NEIGHBOURS`] neighbours each, and of one order the first
//!   [`MAX_BASKET`] items, for a wholesaler's order of a thousand lines says little about taste and costs a
//!   million pairs.
//! - [`sessions`] is the other model: it knows the order of things within a session, and is asked first.

mod catalogue;
mod excerpt;
mod gather;
mod population;
pub mod sessions;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use catalogue::{Catalogue, ItemFacts};
pub use excerpt::{Excerpt, ExcerptItem, ExcerptRef};
pub(in crate::domain) use excerpt::{ExcerptItemRef, Named};
pub use gather::{Gathering, TOUCHING, Touch};
pub use population::{Population, WentOn};

/// The most items in a model; the least bought are left out. About 10 MiB at the most.
pub const MAX_ITEMS: usize = 50_000;
/// The most neighbours kept of one item: several times what a page shows.
pub const MAX_NEIGHBOURS: usize = 20;
/// Fewer orders in common are chance.
pub const MIN_TOGETHER: u32 = 3;
/// The most items of one order that count towards similarity.
pub const MAX_BASKET: usize = 100;
/// The most ways of paying or shipping that are counted; a shop has a dozen.
pub const MAX_METHODS: usize = 1_000;

/// What a shop's customers bought: the input of the population model. Newest orders first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Purchases {
    /// One per order: its items (charges left out) and how it was paid and shipped.
    pub orders: Vec<PurchasedOrder>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct PurchasedOrder {
    pub items: Vec<Arc<str>>,
    pub payment_method: Option<Arc<str>>,
    pub shipping_method: Option<Arc<str>>,
}
