//! Requests that no honest client sends, a few thousand of them, at the real binary. The same ones every time.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use super::load::wait_until_applied;
use crate::support::process::{Client, Process, SERVER_KEY};

const REQUESTS: u64 = 3_000;
const THREADS: u64 = 8;
/// What the process may have taken at its peak: bodies, caches and the warehouse's pages have bounds of their own,
/// and nothing that was sent is above 1 MiB before inflation.
const MEMORY_BYTES: u64 = 512 << 20;

#[test]
fn hostile_requests_meet_no_500_no_crash_and_no_unbounded_memory() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::start(folder.path());
    let bomb = gzip(&vec![b'['; 32 << 20]);
    let answered: u64 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (addr, bomb) = (process.addr, &bomb);
                scope.spawn(move || {
                    let cases = (thread..REQUESTS).step_by(THREADS as usize);
                    cases.filter(|case| attack(addr, *case, bomb)).count() as u64
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert!(
        answered > REQUESTS / 2,
        "only {answered} of {REQUESTS} requests were answered"
    );

    // It still does its work, and nothing that it took has stopped the lane.
    let mut client = Client::connect(process.addr).unwrap();
    let order = r#"{"event":"Order Completed","event_id":"after","anonymous_id":"after","properties":{"order_id":"after",
        "currency":"GBP","total":1}}"#;
    let (status, receipts) = client.post("/events", order).unwrap();
    assert_eq!(status, 202, "{receipts}");
    assert!(receipts.contains("accepted"), "{receipts}");
    assert_eq!(client.get("/personalize?anonymous_id=after").unwrap().0, 200);
    wait_until_applied(&process);
    if let Some(peak) = process.peak_memory_bytes() {
        assert!(peak < MEMORY_BYTES, "{} MiB", peak >> 20);
    }
    assert!(process.terminate().success());
}

/// Sends one request; whether it was answered.
fn attack(addr: SocketAddr, case: u64, bomb: &[u8]) -> bool {
    let mut random = Random(case.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let request = request(case, &mut random, bomb);
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    // A server that has seen enough closes before it is all sent.
    let sent = stream.write_all(&request.bytes);
    if !request.whole && sent.is_ok() {
        let _ = stream.shutdown(Shutdown::Write);
    }
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let timed_out = read.is_err_and(|error| {
        matches!(
            error.kind(),
            std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
        )
    });
    assert!(!timed_out, "case {case} was left without an answer: {request:?}");
    let answer = answer
        .strip_prefix(b"HTTP/1.1 100 Continue\r\n\r\n")
        .unwrap_or(&answer);
    if answer.is_empty() {
        return false;
    }
    let status = answer
        .get(9..12)
        .and_then(|digits| std::str::from_utf8(digits).ok());
    let status: u16 = status.and_then(|digits| digits.parse().ok()).unwrap_or(0);
    assert!(
        (200..500).contains(&status) || status == 503,
        "case {case}: {request:?} was answered {}",
        String::from_utf8_lossy(answer)
    );
    true
}

struct Request {
    bytes: Vec<u8>,
    /// Whether the server can tell where it ends; otherwise the end of the stream has to.
    whole: bool,
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let start = &self.bytes[..self.bytes.len().min(600)];
        write!(f, "{} bytes: {}", self.bytes.len(), start.escape_ascii())
    }
}

/// What the mutations start from.
const EVENTS: [&str; 4] = [
    r#"{"events":[{"event":"Order Completed","event_id":"o","user_id":"u","anonymous_id":"a","session_id":"s","timestamp":"2023-11-14T22:13:20Z","sent_at":1700000000000,"consent":{"analytics":"granted"},"properties":{"order_id":"1","currency":"GBP","email":"a@b.example","products":[{"product_id":"85123A","quantity":2,"price":2.55}]},"context":{"ip":"192.0.2.7"}}]}"#,
    r#"{"batch":[{"type":"identify","userId":"u1","anonymousId":"a","traits":{"email":"a@b.example"}},{"type":"alias","userId":"u2","previousId":"u1"},{"event":"Identity Unlinked","userId":"u1","anonymousId":"a"}],"sentAt":"2023-11-14T22:13:20.123+01:00"}"#,
    r#"[{"event":"Product Added","anonymous_id":"a","properties":{"product_id":"85123A","quantity":1,"price":"1e2"}},{"event":"Order Refunded","properties":{"order_id":"1","total":0.005,"currency":"JPY"}},{"event":"Order Cancelled","properties":{"order_id":"1"}}]"#,
    r#"{"anonymous_id":"a","session_id":"s","placements":["promo"],"cart":[{"sku":"A","quantity":2,"price":2.55}],"currency":"gbp","consent":{"personalization":"granted"},"deadline_ms":200,"explain":true,"events":[{"event":"Checkout Started","properties":{"value":1.5}}]}"#,
];
const QUERIES: [&str; 2] = [
    "user_id=u%401&anonymous_id=a&session_id=s&placements=promo,upsell&cart=85123A:2:2.55,b%2Cc:1&currency=gbp&country=GB",
    "anonymous_id=a&cart=A%3A2%2CB%3A1&locale=en-GB&device=mobile&consent=analytics:granted&deadline_ms=200&explain=true",
];
/// Values where parsers break.
const ODD: [&str; 20] = [
    "1e400",
    "-0",
    "9223372036854775808",
    "0.00000000000000000000000000001",
    "null",
    "[]",
    "{}",
    "\"\"",
    "\"\\ud800\"",
    "\"\\u0000\"",
    "true",
    "1e-400",
    "\"99999999999-12-31T23:59:60Z\"",
    "\"\\u202e\"",
    "-1",
    "{\"a\":{\"a\":{\"a\":[]}}}",
    "18446744073709551616",
    "\"%00\"",
    "\"NaN\"",
    "\"://@?#\"",
];

fn request(case: u64, random: &mut Random, bomb: &[u8]) -> Request {
    let path = if random.below(2) == 0 {
        "/events"
    } else {
        "/personalize"
    };
    let broken = |bytes| Request { bytes, whole: false };
    match case % 16 {
        0 => broken(random.bytes(2_000)),
        1 => post(path, "", &random.bytes(4_000)),
        2 => {
            let text = random.one(&EVENTS);
            let body = random.damage(text.as_bytes());
            post(path, "", &body)
        }
        3..=5 => {
            // Still JSON, with some values replaced.
            let mut text = random.one(&EVENTS).replace("\"o\"", &format!("\"o{case}\""));
            for _ in 0..=random.below(4) {
                let starts: Vec<usize> = text.match_indices("\":").map(|(at, _)| at + 2).collect();
                let at = starts[random.below(starts.len())];
                let end = text[at..]
                    .find([',', '}', ']'])
                    .map_or(text.len(), |end| at + end);
                text.replace_range(at..end, random.one(&ODD));
            }
            post(path, "", text.as_bytes())
        }
        6 => {
            let open = random.one(&[
                "[",
                "{\"a\":",
                "{\"events\":[{\"event\":\"x\",\"properties\":{\"a\":[",
            ]);
            let deep = random.one(&["[", "{\"a\":"]).repeat(1 << random.below(17));
            post(path, "", [open, &deep].concat().as_bytes())
        }
        7 => {
            let mut sent = gzip(EVENTS[0].as_bytes());
            match random.below(3) {
                0 => sent.truncate(random.below(sent.len())),
                1 => sent = random.damage(&sent),
                _ => sent.extend(random.bytes(100)),
            }
            post(path, "Content-Encoding: gzip\r\n", &sent)
        }
        8 if case % 256 == 8 => post(path, "Content-Encoding: gzip\r\n", bomb),
        8 => {
            let header = random.one(&[
                "X-Long",
                "Authorization",
                "Content-Type",
                "Origin",
                "Content-Encoding",
                "Cookie",
            ]);
            let long = format!("{header}: {}\r\n", "x".repeat(1 << random.below(18)));
            let many = format!("{header}: x\r\n").repeat(random.below(400));
            post(path, random.one(&[&long, &many]), b"{}")
        }
        9 => {
            // Lengths that are not the body's, and two framings at once.
            let length = random.one(&[
                "Content-Length: 1000000",
                "Content-Length: 3",
                "Content-Length: -1",
                "Content-Length: 18446744073709551616",
                "Content-Length: 2\r\nContent-Length: 30",
                "Content-Length: x",
                "Transfer-Encoding: chunked",
                "Transfer-Encoding: chunked\r\nContent-Length: 5",
                "Transfer-Encoding: gzip",
                "Expect: 100-continue\r\nContent-Length: 900",
            ]);
            let body = random.one(&[
                "{}",
                "5\r\n{\"a\":",
                "ffffffffffffffff\r\n{}",
                "-1\r\n\r\n",
                "0\r\n",
                "2;x\r\n{}\r\nzz\r\n",
            ]);
            let key = format!("Authorization: Bearer {SERVER_KEY}");
            broken(format!("POST {path} HTTP/1.1\r\nHost: x\r\n{key}\r\n{length}\r\n\r\n{body}").into_bytes())
        }
        10..=12 => {
            let query = random.one(&QUERIES);
            let mut query = random.damage(query.as_bytes());
            // What would end the line belongs to the next case.
            query.retain(|byte| !byte.is_ascii_whitespace() && *byte != 0);
            get(&[b"/personalize?", &query[..]].concat())
        }
        13 => {
            let pieces = [
                "%", "%F", "%FF", "%ZZ", "%00", "%u0041", "+", "&", "=", ":", ",", "cart", "user_id", "key",
                "\u{e9}", "#", "?",
            ];
            let query: String = (0..random.below(60)).map(|_| random.one(&pieces)).collect();
            get(format!("/personalize?cart={query}").as_bytes())
        }
        14 => {
            let line: &[u8] = random.one(&[
                &b"PRI * HTTP/2.0"[..],
                b"CONNECT x:1 HTTP/1.1",
                b"OPTIONS * HTTP/1.1",
                b"GET /personalize\0 HTTP/1.1",
                b"GET /personalize?a=\xff\xfe HTTP/1.1",
                b"GET http://[::1/personalize HTTP/1.1",
                b"GET /../../etc/passwd HTTP/1.1",
                b"GET /personalize HTTP/9.9",
                b"GET",
                b"\x16\x03\x01\x02",
                b"POST /events\tHTTP/1.1",
                b"TRACE /events HTTP/1.1",
            ]);
            let headers = random.one(&[&b"\r\nHost: \xff\r\n\r\n"[..], b"\r\nX: \0\r\n\r\n", b"\n\n"]);
            broken([line, headers].concat())
        }
        _ => {
            let type_ = random.one(&[
                "text/plain",
                "application/json; charset=\u{ff}",
                "\u{0}",
                "multipart/form-data",
                "application/json",
            ]);
            let key = random.one(&[
                "Bearer \u{e9}",
                "Basic ////",
                "Basic Og==",
                "Bearer ",
                "Digest",
                "\u{1}",
                "Basic",
            ]);
            let body = random.damage(EVENTS[0].as_bytes());
            let head = format!(
                "POST {path}?key=%FF HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: {key}\r\nContent-Type: {type_}\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            broken([head.as_bytes(), &body].concat())
        }
    }
}

fn post(path: &str, headers: &str, body: &[u8]) -> Request {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {SERVER_KEY}\r\n{headers}Content-Length: {}\r\n\r\n",
        body.len()
    );
    Request {
        bytes: [head.as_bytes(), body].concat(),
        whole: true,
    }
}

fn get(target: &[u8]) -> Request {
    let rest =
        format!(" HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {SERVER_KEY}\r\n\r\n");
    Request {
        bytes: [b"GET ", target, rest.as_bytes()].concat(),
        whole: true,
    }
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

/// xorshift64*: the same numbers every time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 33) as usize % bound.max(1)
    }

    fn one<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len())]
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        (0..self.below(most)).map(|_| self.next() as u8).collect()
    }

    /// Some bytes flipped, dropped, doubled or replaced by what parsers care about.
    fn damage(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = bytes.to_vec();
        for _ in 0..=self.below(6) {
            let at = self.below(out.len());
            match self.below(5) {
                0 => out[at] ^= 1 << self.below(8),
                1 => drop(out.remove(at)),
                2 => out.insert(at, [0, 0xff, b'"', b'\\', b'{', b'[', b'%', b'e'][self.below(8)]),
                3 => {
                    let piece = out[at..(at + self.below(40)).min(out.len())].to_vec();
                    out.splice(at..at, piece);
                }
                _ => drop(out.splice(at..at, self.one(&ODD).bytes())),
            }
        }
        out
    }
}
