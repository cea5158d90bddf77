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
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, Row as _};
use tempfile::TempDir;

use super::postgres::Database;
use super::postgres_server::PostgresServer;
use super::proxy::{Proxy, Weather};
use super::redis::{DURABLE, RedisServer};

/// Makes of each function `NAME(stack: Stack)` the tests `NAME::embedded` and `NAME::networked`; `threads = N;` in front gives
/// them a runtime of so many.
macro_rules! on_both_stacks {
    ($($name:ident),+ $(,)?) => {
        $crate::support::stack::on_both_stacks!(@ () $($name),+);
    };
    (threads = $threads:literal; $($name:ident),+ $(,)?) => {
        $crate::support::stack::on_both_stacks!(@ (flavor = "multi_thread", worker_threads = $threads) $($name),+);
    };
    (@ $runtime:tt $($name:ident),+) => { $(
        mod $name {
            use $crate::support::stack::Stack;

            #[tokio::test $runtime]
            async fn embedded() {
                Box::pin(super::$name(Stack::Embedded)).await;
            }

            #[tokio::test $runtime]
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

/// A server of the networked stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// The Redis that holds hot profiles.
    Hot,
    /// The Redis that holds the log.
    Log,
    Postgres,
}

/// What befalls a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sickness {
    /// The way to it, with [`Stores::behind_proxies`].
    Weather(Weather),
    /// SIGSTOP until it is healed, with [`Stores::on_own_servers`].
    Paused,
    /// SIGKILL, and started again when it is healed, with [`Stores::on_own_servers`].
    Killed,
}

/// Where the data of one test are; they go with the value.
pub struct Stores {
    pub stack: Stack,
    pub folder: TempDir,
    /// On the server that all tests share.
    database: Option<Database>,
    /// In place of that.
    postgres: Option<PostgresServer>,
    redis: Option<RedisServer>,
    log: Option<RedisServer>,
    /// In front of the servers, by the setting that names each.
    proxies: Vec<(Server, &'static str, Proxy)>,
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

    /// The networked stack, whose PostgreSQL is this test's alone as well: any of its servers may be paused and killed.
    pub async fn on_own_servers() -> Stores {
        Stores {
            stack: Stack::Networked,
            postgres: Some(PostgresServer::start().await),
            redis: Some(RedisServer::start(&[])),
            log: Some(RedisServer::start(DURABLE)),
            ..Stores::embedded()
        }
    }

    pub fn embedded() -> Stores {
        Stores {
            stack: Stack::Embedded,
            folder: tempfile::tempdir().unwrap(),
            database: None,
            postgres: None,
            redis: None,
            log: None,
            proxies: Vec::new(),
        }
    }

    /// Puts a proxy in front of every server.
    pub async fn behind_proxies(mut self) -> Stores {
        let urls = self.urls();
        for (server, setting) in [
            (Server::Log, "queue.url"),
            (Server::Hot, "hot.url"),
            (Server::Postgres, "warehouse.url"),
        ] {
            let url = &urls.iter().find(|(name, _)| *name == setting).unwrap().1;
            let upstream = tokio::net::lookup_host(authority(url)).await.unwrap().next();
            self.proxies
                .push((server, setting, Proxy::start(upstream.unwrap()).await));
        }
        self
    }

    /// Lets these servers fall sick.
    pub fn sicken(&mut self, servers: &[Server], sickness: Sickness) {
        for &server in servers {
            match sickness {
                Sickness::Weather(weather) => self.proxy(server).set(weather),
                Sickness::Paused => match server {
                    Server::Hot => self.redis().pause(),
                    Server::Log => self.log().pause(),
                    Server::Postgres => self.postgres().pause(),
                },
                Sickness::Killed => match server {
                    Server::Hot => self.hot_server().kill(),
                    Server::Log => self.log().kill(),
                    Server::Postgres => self.postgres().kill(),
                },
            }
        }
    }

    /// Makes them well again; one that was killed answers by then.
    pub async fn heal(&mut self, servers: &[Server], sickness: Sickness) {
        for &server in servers {
            match sickness {
                Sickness::Weather(_) => self.proxy(server).set(Weather::Fair),
                Sickness::Paused => match server {
                    Server::Hot => self.redis().resume(),
                    Server::Log => self.log().resume(),
                    Server::Postgres => self.postgres().resume(),
                },
                Sickness::Killed => match server {
                    Server::Hot => self.hot_server().restart(),
                    Server::Log => self.log().restart(),
                    Server::Postgres => self.postgres().restart().await,
                },
            }
        }
    }

    fn proxy(&self, of: Server) -> &Proxy {
        let proxy = self.proxies.iter().find(|(server, ..)| *server == of);
        &proxy.expect("a proxy in front of it").2
    }

    fn postgres(&mut self) -> &mut PostgresServer {
        self.postgres.as_mut().expect("a PostgreSQL of this test's own")
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

    /// Without a proxy; `None` where the warehouse is a file.
    fn database_url(&self) -> Option<String> {
        let own = self.postgres.as_ref().map(PostgresServer::url);
        own.or_else(|| Some(self.database.as_ref()?.url()))
    }

    /// The URLs by the settings that take them.
    pub fn urls(&self) -> [(&'static str, String); 3] {
        let warehouse = match self.database_url() {
            Some(url) => url,
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
            reports: true,
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
        if let Some(url) = self.database_url() {
            let mut conn = PgConnection::connect(&url).await.unwrap();
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
