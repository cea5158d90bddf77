//! A private Redis for the comparisons that want one.

use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Ended when it goes out of scope.
pub(crate) struct RedisServer {
    child: Child,
    pub url: String,
    _folder: tempfile::TempDir,
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl RedisServer {
    /// `durable` syncs every write before it is answered.
    pub(crate) fn start(durable: bool) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let addr = super::server::free_addr();
        let mut command = Command::new("redis-server");
        command
            .args([
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--port",
                &addr.port().to_string(),
            ])
            .arg("--dir")
            .arg(folder.path());
        if durable {
            command.args(["--appendonly", "yes", "--appendfsync", "always"]);
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server on the PATH: install it to run this part");
        let started = Instant::now();
        while TcpStream::connect(addr).is_err() {
            assert!(
                started.elapsed() < Duration::from_secs(10),
                "redis-server does not answer"
            );
            std::thread::park_timeout(Duration::from_millis(10));
        }
        RedisServer {
            child,
            url: format!("redis://{addr}"),
            _folder: folder,
        }
    }
}
