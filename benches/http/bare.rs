//! The baseline: an axum server whose routes do one thing each.
//!
//! - `GET /const` answers 1 KiB.
//! - `POST /wal` checks the JSON syntax of its body, appends it to a zero-filled file by group commit, and
//!   answers 202 after the fdatasync: what durable ingestion costs at least.
//! - `GET /redis/N` answers one of [`VALUES`] values of 1 KiB from Redis, `GET /moka/N` the same from a cache in this process.
//! - `GET /postgres/N` answers one of as many values from a PostgreSQL table, by its primary key.
//! - `POST /xadd` adds each event of its body to a Redis stream, in one pipeline, and answers 202 after Redis has.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::mpsc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path as UrlPath, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::serve::ListenerExt as _;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use serde_json::value::RawValue;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::sync::oneshot;

const FILE_BYTES: u64 = 512 << 20;
const GROUP_BYTES: usize = 4 << 20;
/// As many as there are shoppers.
const VALUES: u64 = super::SHOPPERS;

const POSTGRES_CONNECTIONS: u32 = 8;

type Append = (Bytes, oneshot::Sender<()>);

/// Serves until the process is ended.
pub(crate) fn serve(addr: SocketAddr, folder: &Path, redis: Option<&str>, postgres: Option<&str>) {
    let (appends, received) = mpsc::channel();
    let file = zero_filled(&folder.join("bare.log"));
    std::thread::spawn(move || commit_groups(&file, &received));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let body = Bytes::from(format!("{{\"pad\":\"{}\"}}", "x".repeat(1_012)));
        let json = [(axum::http::header::CONTENT_TYPE, "application/json")];
        let router = Router::new()
            .route(
                "/const",
                get({
                    let body = body.clone();
                    move || async move { (json, body) }
                }),
            )
            .route("/wal", post(wal))
            .with_state(appends);
        let router = match redis {
            Some(url) => router.merge(stores(url, &body).await),
            None => router,
        };
        let router = match postgres {
            Some(url) => router.merge(table(url, &body).await),
            None => router,
        };
        let listener = tokio::net::TcpListener::bind(addr).await.expect("a free port");
        let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
        axum::serve(listener, router).await.expect("serving");
    });
}

#[derive(Clone)]
struct Stores {
    redis: ConnectionManager,
    moka: moka::sync::Cache<u64, Bytes>,
}

/// The routes that read and write stores, filled.
async fn stores(url: &str, value: &Bytes) -> Router {
    let client = redis::Client::open(url).expect("a Redis URL");
    // Its own limit on answers, half a second, is less than a sync takes now and then.
    let config = ConnectionManagerConfig::new().set_response_timeout(None);
    let mut redis = client
        .get_connection_manager_with_config(config)
        .await
        .expect("a Redis server");
    let moka = moka::sync::Cache::new(2 * VALUES);
    let mut pipeline = redis::pipe();
    for n in 0..VALUES {
        pipeline.cmd("SET").arg(key(n)).arg(&value[..]).ignore();
        moka.insert(n, value.clone());
    }
    let () = pipeline.query_async(&mut redis).await.expect("the writes");
    Router::new()
        .route("/redis/{n}", get(from_redis))
        .route("/moka/{n}", get(from_moka))
        .route("/xadd", post(xadd))
        .with_state(Stores { redis, moka })
}

fn key(n: u64) -> String {
    format!("bare:{n}")
}

type Json = ([(axum::http::HeaderName, &'static str); 1], Bytes);

fn json(value: Bytes) -> Json {
    ([(axum::http::header::CONTENT_TYPE, "application/json")], value)
}

/// The route that reads the table `bare_value`, filled.
async fn table(url: &str, value: &Bytes) -> Router {
    // As many connections as a node's readers have.
    let pool = PgPoolOptions::new().max_connections(POSTGRES_CONNECTIONS);
    let pool = pool.connect(url).await.expect("a PostgreSQL database");
    let make = "create table if not exists bare_value (n bigint primary key, value bytea not null)";
    sqlx::query(make).execute(&pool).await.expect("a table");
    let fill = "insert into bare_value select n, $2 from generate_series(0, $1 - 1) n on conflict do nothing";
    let count = i64::try_from(VALUES).expect("a few values");
    let fill = sqlx::query(fill).bind(count).bind(&value[..]);
    fill.execute(&pool).await.expect("the rows");
    Router::new()
        .route("/postgres/{n}", get(from_postgres))
        .with_state(pool)
}

async fn from_postgres(State(pool): State<PgPool>, UrlPath(n): UrlPath<i64>) -> Result<Json, StatusCode> {
    let select = sqlx::query_scalar::<_, Vec<u8>>("select value from bare_value where n = $1");
    let value = select.bind(n).fetch_one(&pool).await;
    value
        .map(|value| json(value.into()))
        .map_err(|_| StatusCode::BAD_GATEWAY)
}

async fn from_redis(State(mut stores): State<Stores>, UrlPath(n): UrlPath<u64>) -> Result<Json, StatusCode> {
    let mut command = redis::cmd("GET");
    let value: Result<Vec<u8>, _> = command.arg(key(n)).query_async(&mut stores.redis).await;
    value
        .map(|value| json(value.into()))
        .map_err(|_| StatusCode::BAD_GATEWAY)
}

async fn from_moka(State(stores): State<Stores>, UrlPath(n): UrlPath<u64>) -> Result<Json, StatusCode> {
    stores.moka.get(&n).map(json).ok_or(StatusCode::NOT_FOUND)
}

async fn xadd(State(mut stores): State<Stores>, body: Bytes) -> StatusCode {
    let events: Vec<&RawValue> = match body.first() {
        Some(b'[') => serde_json::from_slice(&body).unwrap_or_default(),
        _ => serde_json::from_slice(&body).into_iter().collect(),
    };
    let mut pipeline = redis::pipe();
    for event in events {
        pipeline
            .cmd("XADD")
            .arg("bare")
            .arg(&["MAXLEN", "~", "1000000", "*", "e"])
            .arg(event.get())
            .ignore();
    }
    match pipeline.query_async::<()>(&mut stores.redis).await {
        Ok(()) => StatusCode::ACCEPTED,
        Err(_) => StatusCode::BAD_GATEWAY,
    }
}

async fn wal(State(appends): State<mpsc::Sender<Append>>, body: Bytes) -> StatusCode {
    if serde_json::from_slice::<serde::de::IgnoredAny>(&body).is_err() {
        return StatusCode::BAD_REQUEST;
    }
    let (done, durable) = oneshot::channel();
    if appends.send((body, done)).is_err() {
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    match durable.await {
        Ok(()) => StatusCode::ACCEPTED,
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn zero_filled(path: &Path) -> File {
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .open(path)
        .expect("the log file");
    let zeros = vec![0; 1 << 20];
    for _ in 0..FILE_BYTES >> 20 {
        file.write_all(&zeros).expect("space for the log file");
    }
    file.sync_all().expect("fsync");
    file
}

/// Takes all that waits, writes it in one go, syncs, and answers.
fn commit_groups(file: &File, received: &mpsc::Receiver<Append>) {
    let mut group = Vec::with_capacity(GROUP_BYTES);
    let mut waiting = Vec::new();
    let mut offset = 0;
    while let Ok(first) = received.recv() {
        group.clear();
        let mut next = Some(first);
        while let Some((body, done)) = next {
            group.extend_from_slice(&(body.len() as u32).to_le_bytes());
            group.extend_from_slice(&body);
            waiting.push(done);
            next = if group.len() < GROUP_BYTES {
                received.try_recv().ok()
            } else {
                None
            };
        }
        if offset + group.len() as u64 > FILE_BYTES {
            offset = 0;
        }
        file.write_all_at(&group, offset).expect("writing the log file");
        offset += group.len() as u64;
        file.sync_data().expect("fdatasync");
        for done in waiting.drain(..) {
            let _ = done.send(());
        }
    }
}
