//! Private Redis servers for the tests, each on a free port and in a folder of its own, both gone with the value.
//!
//! A server can be killed, paused and started again on its port and folder. A binary that is missing fails the
//! test; it is never skipped.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

const MISSING: &str =
    "no Redis for the tests: install one (apt-get install redis-server), so that redis-server is on the PATH";

/// Longer than any start takes on a busy machine; a test fails with a reason instead of hanging.
const PATIENCE: Duration = Duration::from_secs(60);

/// Writes are on disk before they are answered.
pub const DURABLE: &[&str] = &["--appendonly", "yes", "--appendfsync", "always"];

/// A running `redis-server`. Killed when it goes out of scope.
#[derive(Debug)]
pub struct RedisServer {
    child: Option<Child>,
    port: u16,
    folder: TempDir,
    arguments: Vec<String>,
}

impl RedisServer {
    /// Starts a server that keeps nothing on disk unless `arguments` say so, and waits until it answers.
    pub fn start(arguments: &[&str]) -> RedisServer {
        let folder = tempfile::tempdir().unwrap();
        RedisServer::start_in(folder, arguments)
    }

    fn start_in(folder: TempDir, arguments: &[&str]) -> RedisServer {
        let mut server = RedisServer {
            child: None,
            port: 0,
            folder,
            arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
        };
        let started = Instant::now();
        loop {
            server.port = free_port();
            if server.launch() {
                return server;
            }
            // Somebody took the port meanwhile.
            assert!(started.elapsed() < PATIENCE, "redis-server does not start");
        }
    }

    /// The port of the listener with TLS, for a server that was started with [`tls`].
    pub fn tls_url(&self) -> String {
        // The certificate is nobody's.
        let port: Vec<String> = self.command(&["config", "get", "tls-port"]);
        format!("rediss://127.0.0.1:{}/#insecure", port[1])
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// A blocking connection, for what a test looks at or does behind the product's back.
    pub fn connection(&self) -> redis::Connection {
        redis::Client::open(self.url())
            .unwrap()
            .get_connection_with_timeout(PATIENCE)
            .unwrap()
    }

    /// One command with its arguments.
    pub fn command<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let mut command = redis::Cmd::new();
        for word in words {
            command.arg(*word);
        }
        command.query(&mut self.connection()).unwrap()
    }

    /// SIGSTOP: it keeps its connections and answers nothing, until resumed.
    pub fn pause(&self) {
        self.signal(libc::SIGSTOP);
    }

    pub fn resume(&self) {
        self.signal(libc::SIGCONT);
    }

    /// SIGKILL: nothing is flushed, nothing is said.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Starts again on the same port and folder, after a [`kill`](Self::kill) or by one.
    pub fn restart(&mut self) {
        self.kill();
        let started = Instant::now();
        while !self.launch() {
            assert!(
                started.elapsed() < PATIENCE,
                "redis-server does not start again on port {}",
                self.port
            );
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }

    fn signal(&self, signal: i32) {
        let child = self.child.as_ref().expect("the server runs");
        // SAFETY: signals a child that was not waited for, so its process id is still its own.
        let sent = unsafe { libc::kill(i32::try_from(child.id()).unwrap(), signal) };
        assert_eq!(sent, 0);
    }

    /// Starts the process and waits for its first answer; false when it ended before that.
    fn launch(&mut self) -> bool {
        let mut child = Command::new(binary("redis-server"))
            .args([
                "--bind",
                "127.0.0.1",
                "--port",
                &self.port.to_string(),
                "--save",
                "",
            ])
            .arg("--dir")
            .arg(self.folder.path())
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{error}; {MISSING}"));
        let started = Instant::now();
        loop {
            if child.try_wait().unwrap().is_some() {
                return false;
            }
            // A stranger on this port would answer as well, but then the child ends.
            if answers(self.port) && child.try_wait().unwrap().is_none() {
                self.child = Some(child);
                return true;
            }
            assert!(started.elapsed() < PATIENCE, "redis-server does not answer");
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The arguments of a server that listens with TLS as well.
pub fn tls() -> Vec<String> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tls");
    let file = |name: &str| fixtures.join(name).display().to_string();
    [
        ("--tls-port", free_port().to_string()),
        ("--tls-cert-file", file("certificate.pem")),
        ("--tls-key-file", file("key.pem")),
        ("--tls-auth-clients", "no".to_owned()),
    ]
    .into_iter()
    .flat_map(|(name, value)| [name.to_owned(), value])
    .collect()
}

/// A Redis Cluster of three masters that share all slots.
#[derive(Debug)]
pub struct RedisCluster {
    pub nodes: Vec<RedisServer>,
}

impl RedisCluster {
    pub fn start() -> RedisCluster {
        let nodes: Vec<_> = (0..3).map(|_| RedisCluster::node()).collect();
        for (n, node) in nodes.iter().enumerate() {
            let (first, last) = (n * 5462, (n * 5462 + 5461).min(16_383));
            let _: () = node.command(&["cluster", "addslotsrange", &first.to_string(), &last.to_string()]);
            let _: () = node.command(&["cluster", "set-config-epoch", &(n + 1).to_string()]);
        }
        for node in &nodes[1..] {
            let port = node.port().to_string();
            let bus: String = node.command::<Vec<String>>(&["config", "get", "cluster-port"])[1].clone();
            let _: () = nodes[0].command(&["cluster", "meet", "127.0.0.1", &port, &bus]);
        }
        let started = Instant::now();
        let is_whole = |node: &RedisServer| {
            let info: String = node.command(&["cluster", "info"]);
            info.contains("cluster_state:ok")
                && info.contains("cluster_known_nodes:3")
                && info.contains("cluster_slots_ok:16384")
        };
        while !nodes.iter().all(is_whole) {
            assert!(started.elapsed() < PATIENCE, "the cluster does not come together");
            std::thread::park_timeout(Duration::from_millis(10));
        }
        RedisCluster { nodes }
    }

    /// One node; its bus port is free as well.
    fn node() -> RedisServer {
        let bus = free_port().to_string();
        RedisServer::start(&["--cluster-enabled", "yes", "--cluster-port", &bus])
    }

    pub fn url(&self) -> String {
        let nodes = self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port()));
        format!("redis-cluster://{}", nodes.collect::<Vec<_>>().join(","))
    }
}

/// A port that nothing listens on, below those that the system gives to outgoing connections, so that a server
/// that was killed finds its own still free.
pub fn free_port() -> u16 {
    loop {
        // A fresh v4-like random number without another crate: the last bytes of an id made for this moment.
        let random = uuid::Uuid::now_v7().as_u128();
        let port = 11_000 + u16::try_from(random % 20_000).unwrap();
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// Whether a server that has loaded its data answers, asking for a password or not.
fn answers(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else {
        return false;
    };
    let _ = stream.set_read_timeout(Some(PATIENCE));
    let mut answer = [0; 7];
    stream
        .write_all(b"PING\r\n")
        .and_then(|()| stream.read_exact(&mut answer))
        .is_ok_and(|()| answer.starts_with(b"+PONG") || answer.starts_with(b"-NOAUTH"))
}

fn binary(program: &str) -> PathBuf {
    #[allow(clippy::disallowed_methods)]
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .chain([Path::new("/usr/bin").join(program)])
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("{program} not found; {MISSING}"))
}
