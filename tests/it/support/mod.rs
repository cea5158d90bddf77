//! What several tests need to run the product.

pub mod api;
pub mod app;
pub mod faults;
pub mod gates;
pub mod postgres;
pub mod postgres_server;
pub mod process;
pub mod proxy;
#[allow(dead_code)]
pub mod redis;
pub mod stack;

/// How often a test with random moments repeats: `default`, times `CARTWRIGHT_TEST_ROUNDS` where that is set.
#[allow(
    clippy::disallowed_methods,
    reason = "a switch of the tests, not a setting of the product"
)]
pub fn rounds(default: usize) -> usize {
    let factor = std::env::var("CARTWRIGHT_TEST_ROUNDS")
        .ok()
        .and_then(|factor| factor.parse().ok());
    default * factor.unwrap_or(1)
}
