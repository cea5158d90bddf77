//! The requests that the load is made of.

use super::SHOPPERS;
use super::server::SERVER_KEY;

pub(crate) fn personalize(n: u64) -> Vec<u8> {
    personalize_for(scatter(n) % SHOPPERS)
}

pub(crate) fn personalize_for(shopper: u64) -> Vec<u8> {
    let path = format!(
        "/personalize?user_id=user-{shopper}&session_id=s-{shopper}&placements=payment_methods,promo,upsell\
         &cart=85123A:2:2.55,22752:1:7.65&currency=GBP&country=GB&device=mobile"
    );
    get(&path, SERVER_KEY)
}

pub(crate) fn get(path: &str, key: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {key}\r\n\r\n").into_bytes()
}

pub(crate) fn post(path: &str, body: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {SERVER_KEY}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

pub(crate) fn closing(request: Vec<u8>) -> Vec<u8> {
    let text = String::from_utf8(request).expect("a text request");
    text.replacen("host: bench\r\n", "host: bench\r\nconnection: close\r\n", 1)
        .into_bytes()
}

/// `count` events as one JSON text, each of about 500 bytes and of another shopper.
pub(crate) fn events_body(n: u64, count: u64) -> String {
    if count == 1 {
        return event(n);
    }
    let events: Vec<String> = (0..count).map(|i| event(n * count + i)).collect();
    format!("[{}]", events.join(","))
}

fn event(n: u64) -> String {
    const ITEMS: [&str; 8] = [
        "85123A", "22752", "84029G", "71053", "21730", "22423", "47566", "22720",
    ];
    let shopper = scatter(n) % SHOPPERS;
    let item = ITEMS[(scatter(n + 7) % 8) as usize];
    let process = std::process::id();
    format!(
        concat!(
            r#"{{"event_id":"{process}-{n}-{unique}","event":"Product Added","user_id":"user-{shopper}","#,
            r#""anonymous_id":"device-{shopper}","session_id":"s-{shopper}","properties":{{"cart_id":"cart-{shopper}","#,
            r#""product_id":"{item}","sku":"{item}","category":"home decoration","name":"WHITE HANGING HEART T-LIGHT HOLDER","#,
            r#""brand":"house","variant":"white","price":2.55,"quantity":1,"coupon":"","position":3,"currency":"GBP"}},"#,
            r#""context":{{"locale":"en-GB","page":{{"path":"/checkout/cart","title":"Your basket"}},"#,
            r#""device":{{"type":"mobile"}},"library":{{"name":"analytics.js","version":"2.11.1"}}}}}}"#
        ),
        process = process,
        n = n,
        unique = unique(),
        shopper = shopper,
        item = item,
    )
}

/// Numbers the events of a run, so that no two cases send the same id.
pub(crate) fn unique() -> u64 {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

/// A fixed bijection that spreads consecutive numbers (the finalizer of SplitMix64).
pub(crate) fn scatter(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    n ^ (n >> 31)
}
