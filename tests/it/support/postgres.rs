//! A PostgreSQL server for the tests, and a database of its own for each of them.
//!
//! `CARTWRIGHT_TEST_DATABASE_URL` names a server where databases may be made. Without it a private one is started
//! from the binaries at hand, without fsync, and stopped by the last test that used it. A server that is missing
//! fails the test; it is never skipped.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use cartwright::warehouse::{self, WarehouseConfig};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _};

const MISSING: &str = "no PostgreSQL for the tests: set CARTWRIGHT_TEST_DATABASE_URL=postgres://USER@HOST/DATABASE \
                       to a server where databases may be made, or install one (apt-get install postgresql)";

/// Every migration's text, and which are applied: the schema that a database starts with is copied, not migrated each time.
fn schema() -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/postgres");
    let files = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path());
    let mut files: Vec<_> = files.collect();
    files.push(
        concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/src/warehouse/postgres/migrations.rs"
        )
        .into(),
    );
    files.sort();
    files
        .iter()
        .map(|file| std::fs::read_to_string(file).unwrap())
        .collect()
}

/// Deletes every row but those that came with the schema.
const EMPTY: &str = "do $$ declare name text; begin
    for name in select relname from pg_class where relkind = 'r'
        and relnamespace = 'public'::regnamespace and relname not in ('dim_source', '_sqlx_migrations')
    loop execute format('delete from %I', name); end loop;
end $$";

/// A migrated database, dropped with the value.
pub(crate) struct Database {
    server: Arc<Server>,
    name: String,
    /// Has the whole schema, so the next test may have it, emptied.
    reusable: bool,
}

impl Database {
    pub(crate) async fn create() -> Database {
        let server = Server::shared();
        let spare = server.spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(name) = spare {
            let database = Database {
                server,
                name,
                reusable: true,
            };
            database
                .connect()
                .await
                .execute(AssertSqlSafe(EMPTY))
                .await
                .unwrap();
            return database;
        }
        let mut admin = server.admin().await;
        let template = template(&server, &mut admin).await;
        let database = Database::named(server, true);
        let copy = format!("create database {} template {template}", database.name);
        admin.execute(AssertSqlSafe(copy)).await.unwrap();
        // No test crashes the server it shares.
        let hasty = format!("alter database {} set synchronous_commit = off", database.name);
        admin.execute(AssertSqlSafe(hasty)).await.unwrap();
        database
    }

    /// Like [`Database::create`], for tests that change the schema.
    pub(crate) async fn disposable() -> Database {
        let mut database = Database::create().await;
        database.reusable = false;
        database
    }

    /// A database without tables.
    pub(crate) async fn empty() -> Database {
        let server = Server::shared();
        let mut admin = server.admin().await;
        let database = Database::named(server, false);
        admin
            .execute(AssertSqlSafe(format!("create database {}", database.name)))
            .await
            .unwrap();
        database
    }

    fn named(server: Arc<Server>, reusable: bool) -> Database {
        let name = format!("cartwright_test_{}", uuid::Uuid::now_v7().simple());
        Database {
            server,
            name,
            reusable,
        }
    }

    /// A copy as it is now, while nobody is connected.
    pub(crate) async fn copy(&self) -> Database {
        let mut admin = self.server.admin().await;
        let copy = Database::named(Arc::clone(&self.server), false);
        let sql = format!("create database {} template {}", copy.name, self.name);
        admin.execute(AssertSqlSafe(sql)).await.unwrap();
        copy
    }

    pub(crate) fn url(&self) -> String {
        self.server.url(&self.name)
    }

    pub(crate) async fn connect(&self) -> PgConnection {
        PgConnection::connect(&self.url()).await.unwrap()
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let name = std::mem::take(&mut self.name);
        if self.reusable {
            self.server
                .spare
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(name);
        } else {
            self.server.drop_databases(vec![name]);
        }
    }
}

/// Makes the template of this schema, once per server.
async fn template(server: &Server, admin: &mut PgConnection) -> String {
    let digest = schema().bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    let name = format!("cartwright_template_{digest:016x}");
    admin.execute("select pg_advisory_lock(7413)").await.unwrap();
    let exists: bool = sqlx::query_scalar("select exists (select from pg_database where datname = $1)")
        .bind(&name)
        .fetch_one(&mut *admin)
        .await
        .unwrap();
    if !exists {
        // Under another name until it is whole.
        let making = format!("{name}_making");
        for sql in [
            format!("drop database if exists {making} with (force)"),
            format!("create database {making}"),
        ] {
            admin.execute(AssertSqlSafe(sql)).await.unwrap();
        }
        let config = WarehouseConfig {
            url: server.url(&making),
            migrate: true,
        };
        warehouse::open(&config).await.unwrap().close().await;
        let rename = format!("alter database {making} rename to {name}");
        admin.execute(AssertSqlSafe(rename)).await.unwrap();
    }
    admin.execute("select pg_advisory_unlock(7413)").await.unwrap();
    name
}

/// The server that all tests of the process share.
struct Server {
    options: PgConnectOptions,
    private: Option<Private>,
    /// Databases whose test is over. Emptying one is many times faster than making one.
    spare: Mutex<Vec<String>>,
}

static SHARED: Mutex<Option<Arc<Server>>> = Mutex::new(None);

/// Statics are never dropped, so this is called when the process ends.
extern "C" fn leave() {
    let server = SHARED.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(server) = server {
        let spare = std::mem::take(&mut *server.spare.lock().unwrap_or_else(PoisonError::into_inner));
        server.drop_databases(spare);
    }
}

impl Server {
    fn shared() -> Arc<Server> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        let server = shared.get_or_insert_with(|| {
            // SAFETY: `leave` neither panics across the boundary nor refers to anything that is gone by then.
            unsafe { libc::atexit(leave) };
            #[allow(clippy::disallowed_methods)]
            let configured = std::env::var("CARTWRIGHT_TEST_DATABASE_URL");
            let (options, private) = match configured {
                Ok(url) => (
                    url.parse()
                        .expect("CARTWRIGHT_TEST_DATABASE_URL is a PostgreSQL URL"),
                    None,
                ),
                Err(_) => {
                    let private = Private::start();
                    (private.url("postgres").parse().unwrap(), Some(private))
                }
            };
            Arc::new(Server {
                options,
                private,
                spare: Mutex::default(),
            })
        });
        Arc::clone(server)
    }

    fn drop_databases(self: &Arc<Self>, names: Vec<String>) {
        let server = Arc::clone(self);
        // A runtime can't be entered from within another one.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                for name in names {
                    let drop = format!("drop database if exists {name} with (force)");
                    server.admin().await.execute(AssertSqlSafe(drop)).await.unwrap();
                }
            });
        });
        let _ = dropped.join();
    }

    async fn admin(&self) -> PgConnection {
        PgConnection::connect_with(&self.options)
            .await
            .unwrap_or_else(|error| panic!("{error}; {MISSING}"))
    }

    fn url(&self, database: &str) -> String {
        if let Some(private) = &self.private {
            return private.url(database);
        }
        let mut url = self.options.to_url_lossy();
        url.set_path(database);
        url.to_string()
    }
}

/// A server of our own in a folder that stays, so that it is set up once; used by all test processes at a time.
struct Private {
    port: u16,
    folder: PathBuf,
    /// Held shared by every process that uses the server.
    users: File,
    /// Held while a process starts or stops it.
    turn: File,
}

impl Private {
    fn start() -> Private {
        let base = std::env::temp_dir().join(format!("cartwright-postgres-{}", user().unwrap_or("self")));
        std::fs::create_dir_all(&base).unwrap();
        let open = |name: &str| {
            File::options()
                .create(true)
                .append(true)
                .open(base.join(name))
                .unwrap()
        };
        let (users, turn) = (open("users"), open("turn"));
        turn.lock().unwrap();
        let folder = base.join("data");
        if !folder.join("PG_VERSION").exists() {
            set_up(&folder);
        }
        let port = running(&folder).unwrap_or_else(|| {
            let port = std::net::TcpListener::bind("127.0.0.1:0")
                .unwrap()
                .local_addr()
                .unwrap()
                .port();
            let settings = format!(
                "-p {port} -h 127.0.0.1 -k {} -c fsync=off -c max_connections=300",
                folder.display()
            );
            let log = folder.join("log");
            run(
                "pg_ctl",
                &[
                    "start",
                    "-w",
                    "-D",
                    text(&folder),
                    "-l",
                    text(&log),
                    "-o",
                    &settings,
                ],
            );
            port
        });
        users.lock_shared().unwrap();
        turn.unlock().unwrap();
        Private {
            port,
            folder,
            users,
            turn,
        }
    }

    fn url(&self, database: &str) -> String {
        local_url(self.port, database)
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        self.turn.lock().unwrap();
        self.users.unlock().unwrap();
        if self.users.try_lock().is_ok() {
            run(
                "pg_ctl",
                &["stop", "-w", "-m", "immediate", "-D", text(&self.folder)],
            );
        }
    }
}

/// The URL of a database on a server that [`set_up`] made the folder of.
pub(super) fn local_url(port: u16, database: &str) -> String {
    format!("postgres://postgres@127.0.0.1:{port}/{database}?sslmode=disable")
}

/// Makes the folder of a server, for whoever [`command`] runs it as.
pub(super) fn set_up(folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    if let Some(user) = user() {
        let owned = Command::new("chown").arg(user).arg(folder).status().unwrap();
        assert!(owned.success());
    }
    run(
        "initdb",
        &[
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
            "-N",
            "-D",
            text(folder),
        ],
    );
}

/// The port of the server that runs in `folder`.
fn running(folder: &Path) -> Option<u16> {
    let status = command("pg_ctl")
        .args(["status", "-D", text(folder)])
        .output()
        .unwrap();
    let pid = std::fs::read_to_string(folder.join("postmaster.pid")).ok()?;
    if status.status.success() {
        pid.lines().nth(3)?.parse().ok()
    } else {
        None
    }
}

pub(super) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The server refuses to run as root, so root becomes somebody else.
fn user() -> Option<&'static str> {
    // SAFETY: geteuid has no preconditions.
    (unsafe { libc::geteuid() } == 0).then_some("nobody")
}

/// A program of PostgreSQL's.
pub(super) fn command(program: &str) -> Command {
    let program = binary(program);
    let mut command = match user() {
        Some(user) => {
            let mut command = Command::new("setpriv");
            command
                .args(["--reuid", user, "--clear-groups", "--"])
                .arg(program);
            command
        }
        None => Command::new(program),
    };
    command.current_dir("/");
    command
}

fn run(program: &str, arguments: &[&str]) {
    let output = command(program)
        .args(arguments)
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status();
    if !output.is_ok_and(|status| status.success()) {
        let _ = writeln!(
            std::io::stderr(),
            "{program} {arguments:?} failed in {}",
            std::env::temp_dir().display()
        );
        panic!("{MISSING}");
    }
}

/// On the path, or where Debian puts it.
fn binary(program: &str) -> PathBuf {
    #[allow(clippy::disallowed_methods)]
    let path = std::env::var_os("PATH").unwrap_or_default();
    let debian = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    std::env::split_paths(&path)
        .chain(debian.map(|version| version.path().join("bin")))
        .map(|folder| folder.join(program))
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("{program} not found; {MISSING}"))
}
