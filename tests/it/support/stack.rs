//! The stacks that the product is tested on, and the stores of one test.
//!
//! A test that is about the product, not about one store, is written once, takes its [`Stack`] and is named in
//! [`on_both_stacks`], which makes two tests of it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use cartwright::hot::HotConfig;
use cartwright::queue::QueueConfig;
use cartwright::warehouse::WarehouseConfig;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use sqlx::{AssertSqlSafe, Executor as _, Row as _};
use tempfile::TempDir;

use super::postgres::Database;
use super::proxy::{Proxy, Weather};
use super::redis::{DURABLE, RedisServer};

/// Makes of each function `NAME(stack: Stack)` the tests `NAME::embedded` and `NAME::networked`.
macro_rules! on_both_stacks {
    ($($name:ident),+ $(,)?) => { $(
        mod $name {
            use $crate::support::stack::Stack;

            #[tokio::test]
            async fn embedded() {
                Box::pin(super::$name(Stack::Embedded)).await;
            }

            #[tokio::test]
            async fn networked() {
                Box::pin(super::$name(Stack::Networked)).await;
            }
        }
    )+ };
}
pub(crate) use on_both_stacks;

/// See design.md §2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stack {
    /// A log on disk, profiles in memory, SQLite: nothing to install.
    Embedded,
    /// The log in one Redis, hot profiles in another, PostgreSQL.
    Networked,
}

/// Where the data of one test are; they go with the value.
pub struct Stores {
    pub stack: Stack,
    pub folder: TempDir,
    database: Option<Database>,
    redis: Option<RedisServer>,
    log: Option<RedisServer>,
    /// In front of the servers, by the kind of each and the setting that names it.
    proxies: Vec<(&'static str, &'static str, Proxy)>,
}

/// A warehouse as it once was.
pub enum Backup {
    Database(Database),
    File(PathBuf),
}

impl Stores {
    pub async fn new(stack: Stack) -> Stores {
        let mut stores = Stores::embedded();
        if stack == Stack::Networked {
            stores.database = Some(Database::create().await);
            stores.redis = Some(RedisServer::start(&[]));
            stores.log = Some(RedisServer::start(DURABLE));
            stores.stack = stack;
        }
        stores
    }

    pub fn embedded() -> Stores {
        Stores {
            stack: Stack::Embedded,
            folder: tempfile::tempdir().unwrap(),
            database: None,
            redis: None,
            log: None,
            proxies: Vec::new(),
        }
    }

    /// Puts a proxy in front of every server.
    pub async fn behind_proxies(mut self) -> Stores {
        let urls = self.urls();
        for (server, setting) in [
            ("redis", "queue.url"),
            ("redis", "hot.url"),
            ("postgres", "warehouse.url"),
        ] {
            let url = &urls.iter().find(|(name, _)| *name == setting).unwrap().1;
            let upstream = tokio::net::lookup_host(authority(url)).await.unwrap().next();
            self.proxies
                .push((server, setting, Proxy::start(upstream.unwrap()).await));
        }
        self
    }

    /// Which servers can be sick together, with a name for it.
    pub fn sick(&self) -> Vec<(&'static str, &'static [&'static str])> {
        let all: [(_, &[_]); 3] = [
            ("Redis", &["redis"]),
            ("Postgres", &["postgres"]),
            ("both", &["redis", "postgres"]),
        ];
        let there = |name: &&str| self.proxies.iter().any(|(proxied, ..)| proxied == name);
        all.into_iter()
            .filter(|(_, servers)| servers.iter().all(&there))
            .collect()
    }

    /// Changes the weather in front of these servers.
    pub fn weather(&self, servers: &[&str], weather: Weather) {
        for (.., proxy) in self.proxies.iter().filter(|(name, ..)| servers.contains(name)) {
            proxy.set(weather);
        }
    }

    /// The Redis of the networked stack that holds hot profiles.
    pub fn redis(&self) -> &RedisServer {
        self.redis.as_ref().expect("the networked stack")
    }

    /// The same, to be killed and restarted.
    pub fn hot_server(&mut self) -> &mut RedisServer {
        self.redis.as_mut().expect("the networked stack")
    }

    /// The Redis of the networked stack that holds the log, every append of which is synced.
    pub fn log(&mut self) -> &mut RedisServer {
        self.log.as_mut().expect("the networked stack")
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    fn within(&self, scheme: &str, name: &str) -> String {
        format!("{scheme}:{}", self.path().join("data").join(name).display())
    }

    /// The URLs by the settings that take them.
    pub fn urls(&self) -> [(&'static str, String); 3] {
        let warehouse = match &self.database {
            Some(database) => database.url(),
            None => self.within("sqlite", "warehouse.db"),
        };
        let queue = match &self.log {
            Some(redis) => redis.url(),
            None => self.within("disk", "queue"),
        };
        let hot = match &self.redis {
            Some(redis) => redis.url(),
            None => "memory:".to_owned(),
        };
        [
            ("queue.url", self.through("queue.url", queue)),
            ("hot.url", self.through("hot.url", hot)),
            ("warehouse.url", self.through("warehouse.url", warehouse)),
        ]
    }

    /// The URL of `setting` with the proxy in front of its server in its place, where there is one.
    fn through(&self, setting: &str, url: String) -> String {
        match self.proxies.iter().find(|(_, proxied, _)| *proxied == setting) {
            Some((.., proxy)) => url.replacen(authority(&url), &proxy.addr().to_string(), 1),
            None => url,
        }
    }

    fn url(&self, setting: &str) -> String {
        let urls = self.urls();
        urls.into_iter().find(|(name, _)| *name == setting).unwrap().1
    }

    pub fn queue(&self) -> QueueConfig {
        QueueConfig {
            partitions: 1,
            url: self.url("queue.url"),
            limit_bytes: 64 << 20,
            retain: Duration::from_secs(3_600),
            retain_bytes: 64 << 20,
            segment_bytes: 1 << 20,
        }
    }

    pub fn hot(&self) -> HotConfig {
        HotConfig {
            url: self.url("hot.url"),
            memory_bytes: 8 << 20,
            ttl: Duration::from_secs(3_600),
        }
    }

    pub fn warehouse(&self) -> WarehouseConfig {
        WarehouseConfig {
            url: self.url("warehouse.url"),
            migrate: self.stack == Stack::Embedded,
        }
    }

    /// A backup of the warehouse, while no node runs.
    pub async fn back_up(&self) -> Backup {
        match &self.database {
            Some(database) => Backup::Database(database.copy().await),
            None => {
                let to = self.path().join("backup.db");
                std::fs::copy(self.path().join("data/warehouse.db"), &to).unwrap();
                Backup::File(to)
            }
        }
    }

    /// Puts a backup in the warehouse's place, as docs/operations.md says.
    pub async fn restore(&mut self, backup: Backup) {
        const NEW_EPOCH: &str = "delete from warehouse_meta where key = 'epoch'";
        match backup {
            Backup::Database(database) => {
                database.connect().await.execute(NEW_EPOCH).await.unwrap();
                self.database = Some(database);
            }
            Backup::File(file) => {
                let warehouse = self.path().join("data/warehouse.db");
                for neighbour in ["-wal", "-shm"] {
                    let _ = std::fs::remove_file(format!("{}{neighbour}", warehouse.display()));
                }
                std::fs::copy(file, &warehouse).unwrap();
                let options = SqliteConnectOptions::new().filename(warehouse);
                let pool = SqlitePool::connect_with(options).await.unwrap();
                pool.execute(NEW_EPOCH).await.unwrap();
                pool.close().await;
            }
        }
    }

    /// The log is lost, the warehouse is not.
    pub fn lose_log(&self) {
        match &self.log {
            Some(redis) => redis.command(&["flushall"]),
            None => std::fs::remove_dir_all(self.path().join("data/queue")).unwrap(),
        }
    }

    /// What the warehouse answers, every column of which is cast to text.
    pub async fn rows(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        let sql = AssertSqlSafe(sql.to_owned());
        if let Some(database) = &self.database {
            let mut conn = database.connect().await;
            let rows = sqlx::query(sql).fetch_all(&mut conn).await.unwrap();
            return rows
                .iter()
                .map(|row| (0..row.len()).map(|n| row.get(n)).collect())
                .collect();
        }
        let options = SqliteConnectOptions::new().filename(self.path().join("data/warehouse.db"));
        let pool = SqlitePool::connect_with(options).await.unwrap();
        let rows = sqlx::query(sql).fetch_all(&pool).await.unwrap();
        pool.close().await;
        rows.iter()
            .map(|row| (0..row.len()).map(|n| row.get(n)).collect())
            .collect()
    }

    /// The first column of [`rows`](Self::rows).
    pub async fn column(&self, sql: &str) -> Vec<String> {
        let rows = self.rows(sql).await;
        rows.into_iter().map(|mut row| row.remove(0).unwrap()).collect()
    }
}

/// `HOST:PORT` of a URL.
fn authority(url: &str) -> &str {
    let place = url.split_once("://").unwrap().1;
    let place = place.split_once('/').map_or(place, |(place, _)| place);
    place.rsplit_once('@').map_or(place, |(_, place)| place)
}
