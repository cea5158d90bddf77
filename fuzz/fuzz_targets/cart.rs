//! Whatever the `cart` parameter holds. A cart that is read keeps its bounds, and reads the same when written anew.
#![no_main]

use std::fmt::Write as _;

use cartwright::http::parse_cart;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let Ok(lines) = parse_cart(text) else { return };
    assert!(lines.len() <= 200);
    let mut again = String::new();
    for line in &lines {
        assert!(!line.sku.is_empty() && line.sku.len() <= 256 && line.quantity >= 1);
        assert!(line.price.as_ref().is_none_or(|price| !price.is_negative()));
        let separator = if again.is_empty() { "" } else { "," };
        again += separator;
        for byte in line.sku.bytes() {
            let _ = write!(again, "%{byte:02X}");
        }
        let _ = write!(again, ":{}", line.quantity);
    }
    let read = parse_cart(&again).expect("what was read can be written and read again");
    assert_eq!(read.len(), lines.len());
    for (read, line) in read.iter().zip(&lines) {
        assert_eq!((&read.sku, read.quantity), (&line.sku, line.quantity));
    }
});
