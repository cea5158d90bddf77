//! The whole product in this process, on free ports and a folder of its own, called over real sockets.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cartwright::app::{App, Running};
use cartwright::config::{self, Config, Sources};
use http_body_util::{BodyExt as _, Full};
use hyper::{HeaderMap, Method, Request, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use super::gates::Gates;
use super::stack::{Stack, Stores};

pub const PUBLIC_KEY: &str = "pk_test_0123456789abcdef";
pub const SERVER_KEY: &str = "sk_test_0123456789abcdef";

/// Longer than the lane ever takes on a busy machine; a test fails with a reason instead of hanging.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a test starts with.
pub struct Builder {
    settings: Vec<(&'static str, String)>,
    ruleset: Option<String>,
    stores: Stores,
    gates: Option<Gates>,
}

impl Builder {
    /// Sets a setting by its key in `cartwright.toml`.
    pub fn set(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.settings.push((key, value.into()));
        self
    }

    /// Applies this ruleset at the start.
    pub fn ruleset(mut self, yaml: &str) -> Self {
        self.ruleset = Some(yaml.to_owned());
        self
    }

    /// Puts these gates in front of the stores.
    pub fn behind(mut self, gates: &Gates) -> Self {
        self.gates = Some(gates.clone());
        self
    }

    /// The configuration and the stores that it names.
    pub fn config(self) -> (Config, Stores) {
        let stores = self.stores;
        let folder = stores.path();
        let mut flags = vec![
            ("listen", "127.0.0.1:0".to_owned()),
            ("operator_listen", "127.0.0.1:0".to_owned()),
            ("data_dir", folder.join("data").display().to_string()),
            ("public_key", PUBLIC_KEY.to_owned()),
            ("server_key", SERVER_KEY.to_owned()),
            // Tests share a busy machine; those about the deadline set their own.
            ("deadline_ms", "5000".to_owned()),
            ("queue.segment_bytes", "1MiB".to_owned()),
        ];
        flags.extend(stores.urls());
        if stores.stack == Stack::Networked {
            // Several, so that what belongs together meets across them; few, so that a test starts quickly.
            flags.push(("queue.partitions", "4".to_owned()));
            flags.push(("pseudonym_key", "k1:0123456789abcdef".to_owned()));
            flags.push(("user_token_key", "k1:fedcba9876543210".to_owned()));
        }
        if let Some(yaml) = self.ruleset {
            let path = folder.join("ruleset.yaml");
            std::fs::write(&path, yaml).unwrap();
            flags.push(("ruleset", path.display().to_string()));
        }
        flags.extend(self.settings);
        let sources = Sources {
            flags,
            ..Sources::default()
        };
        (config::resolve(&sources).unwrap().config, stores)
    }

    pub async fn start(self) -> TestApp {
        self.try_start().await.unwrap()
    }

    pub async fn try_start(self) -> anyhow::Result<TestApp> {
        let gates = self.gates.clone();
        let (config, stores) = self.config();
        let data_dir = config.data_dir.clone();
        let running = match gates {
            Some(gates) => Box::pin(App::start_around(config, |backends| gates.around(backends))).await?,
            None => Box::pin(App::start(config)).await?,
        };
        Ok(TestApp {
            running: Some(running),
            stores: Some(stores),
            data_dir,
            quarantined: 0,
        })
    }
}

/// A running product. [`TestApp::stop`] it at the end: that is where it is checked that nothing was left behind.
pub struct TestApp {
    running: Option<Running>,
    stores: Option<Stores>,
    pub data_dir: PathBuf,
    quarantined: u64,
}

impl Drop for TestApp {
    fn drop(&mut self) {
        assert!(
            self.running.is_none() || std::thread::panicking(),
            "the test ended without TestApp::stop, so nobody looked at what it left behind"
        );
    }
}

impl TestApp {
    pub fn embedded() -> Builder {
        TestApp::with(Stores::embedded())
    }

    /// On new stores.
    pub async fn on(stack: Stack) -> Builder {
        TestApp::with(Stores::new(stack).await)
    }

    /// On these stores, and what an earlier run left in them.
    pub fn with(stores: Stores) -> Builder {
        Builder {
            settings: Vec::new(),
            ruleset: None,
            stores,
            gates: None,
        }
    }

    pub fn stores(&self) -> &Stores {
        self.stores.as_ref().unwrap()
    }

    /// The same, to make them sick and well.
    pub fn stores_mut(&mut self) -> &mut Stores {
        self.stores.as_mut().unwrap()
    }

    pub fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    pub fn addr(&self) -> SocketAddr {
        self.running().public_addr.unwrap()
    }

    /// `GET` on the public listener under `key`.
    pub async fn get(&self, path: &str, key: &str) -> Answer {
        ask(self.addr(), Method::GET, path, key, None).await
    }

    /// `POST` of JSON on the public listener under `key`.
    pub async fn post(&self, path: &str, key: &str, body: &Value) -> Answer {
        ask(self.addr(), Method::POST, path, key, Some(body)).await
    }

    /// Any call on the operator listener.
    pub async fn operator(&self, method: Method, path: &str, body: impl Into<Bytes>) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::CONTENT_TYPE, "application/json");
        call(self.running().operator_addr, request.body(body.into()).unwrap()).await
    }

    /// Waits until everything in the log is in the warehouse.
    pub async fn settle(&self) {
        let started = Instant::now();
        loop {
            let status = self.operator(Method::GET, "/operator/v1/status", "").await.json();
            if status["fast_lane"]["lag_records"] == 0 {
                return;
            }
            assert!(
                started.elapsed() < PATIENCE,
                "the lane does not catch up: {status}"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Says that exactly `count` more records belong into quarantine.
    pub fn expect_quarantined(&mut self, count: u64) {
        self.quarantined += count;
    }

    /// Waits until the log is empty, checks that nothing unexpected was quarantined, stops in order, and returns
    /// the stores.
    pub async fn stop(mut self) -> Stores {
        self.settle().await;
        let running = self.running.take().unwrap();
        let metrics = running.metrics.render();
        let quarantined: u64 = metrics
            .lines()
            .filter(|line| line.starts_with("cartwright_quarantined_total"))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .sum();
        Box::pin(running.stop()).await;
        assert_eq!(
            quarantined, self.quarantined,
            "records in quarantine (left), expected (right)"
        );
        self.stores.take().unwrap()
    }
}

impl TestApp {
    /// Stops a node whose lane has stopped, so that there is nothing to wait for.
    pub async fn stop_behind(mut self) {
        Box::pin(self.running.take().unwrap().stop()).await;
    }
}

/// A call under `key`, with a JSON body where there is one.
pub async fn ask(addr: SocketAddr, method: Method, path: &str, key: &str, body: Option<&Value>) -> Answer {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::AUTHORIZATION, format!("Bearer {key}"))
        .header(header::CONTENT_TYPE, "application/json");
    let body = body.map(Value::to_string).unwrap_or_default();
    call(addr, request.body(body.into()).unwrap()).await
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON; null where it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

/// One request on a connection of its own.
pub async fn call(addr: SocketAddr, request: Request<Bytes>) -> Answer {
    let stream = TcpStream::connect(addr).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    let (mut head, body) = request.into_parts();
    head.headers
        .insert(header::HOST, addr.to_string().parse().unwrap());
    let (head, body) = sender
        .send_request(Request::from_parts(head, Full::new(body)))
        .await
        .unwrap()
        .into_parts();
    Answer {
        status: head.status.as_u16(),
        headers: head.headers,
        body: body.collect().await.unwrap().to_bytes(),
    }
}
