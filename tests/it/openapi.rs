//! `openapi.yaml` is what the handlers say.

/// After a change of the contract: `UPDATE_OPENAPI=1 cargo nextest run openapi`, and look at the difference.
#[test]
fn the_committed_contract_is_what_the_handlers_say() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.yaml");
    let generated = cartwright::http::openapi::yaml().unwrap();
    #[allow(clippy::disallowed_methods, reason = "a switch of this test alone")]
    let update = std::env::var_os("UPDATE_OPENAPI").is_some();
    if update {
        std::fs::write(file, &generated).unwrap();
    }
    let committed = std::fs::read_to_string(file).unwrap_or_default();
    let line = committed.lines().zip(generated.lines()).position(|(a, b)| a != b);
    assert!(
        committed == generated,
        "openapi.yaml differs from line {} on; run with UPDATE_OPENAPI=1",
        line.unwrap_or(committed.lines().count().min(generated.lines().count())) + 1
    );
}
