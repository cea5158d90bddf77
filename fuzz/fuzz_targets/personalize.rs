//! Whatever arrives at `/personalize`: as a query, as a JSON body, and as a compressed body. Refusals are 4xx.
#![no_main]

use cartwright::http::fuzzing::{inflate, personalize_body, query};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    personalize_body(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        query(text);
    }
    inflate(bytes, 1 << 20);
});
