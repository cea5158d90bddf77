//! The servers under test, as child processes on a core of their own.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) const PUBLIC_KEY: &str = "pk_live_bench_0123456789abcdef";
pub(crate) const SERVER_KEY: &str = "sk_live_bench_0123456789abcdef";

const ENDS_WITHIN: Duration = Duration::from_secs(30);

/// A child process that is ended when it goes out of scope.
pub(crate) struct Server {
    child: Child,
    pub addr: SocketAddr,
    pub operator: SocketAddr,
    /// From the start of the process until it was ready.
    pub ready_after: Duration,
}

impl Drop for Server {
    /// Asks it to end, since a build that is being profiled writes down what it counted at its end; one that does not is killed.
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        let asked = Instant::now();
        // SAFETY: the child has not been waited for, so the id is still its own.
        unsafe { libc::kill(self.child.id().cast_signed(), libc::SIGTERM) };
        while matches!(self.child.try_wait(), Ok(None)) && asked.elapsed() < ENDS_WITHIN {
            std::thread::park_timeout(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// `cartwright serve` on the embedded stack in `folder`, in `roles`.
    pub(crate) fn cartwright(folder: &Path, ruleset: &Path, roles: &str) -> Self {
        Self::cartwright_with(folder, ruleset, roles, &[])
    }

    /// The same with more settings, as environment variables.
    pub(crate) fn cartwright_with(
        folder: &Path,
        ruleset: &Path,
        roles: &str,
        settings: &[(&str, &str)],
    ) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cartwright"));
        let (addr, operator) = (free_addr(), free_addr());
        command
            .arg("serve")
            .env("CARTWRIGHT_DATA_DIR", folder)
            .env("CARTWRIGHT_LISTEN", addr.to_string())
            .env("CARTWRIGHT_OPERATOR_LISTEN", operator.to_string())
            .env("CARTWRIGHT_PUBLIC_KEY", PUBLIC_KEY)
            .env("CARTWRIGHT_SERVER_KEY", SERVER_KEY)
            // On shared stores no node makes its own.
            .env("CARTWRIGHT_PSEUDONYM_KEY", "k1:bench-0123456789abcdef")
            .env("CARTWRIGHT_USER_TOKEN_KEY", "k1:bench-fedcba9876543210")
            .env("CARTWRIGHT_RULESET", ruleset)
            .env("CARTWRIGHT_ROLES", roles)
            .env("CARTWRIGHT_QUEUE_LIMIT_BYTES", "32GiB")
            .env("CARTWRIGHT_LOG", "warn")
            .envs(settings.iter().copied());
        Self::start(command, addr, operator, "/health/ready")
    }

    /// The baseline, which is this very program with `--bare`.
    pub(crate) fn bare(folder: &Path, redis: Option<&str>, postgres: Option<&str>) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("the path of this program"));
        let addr = free_addr();
        command
            .arg("--bare")
            .arg(addr.to_string())
            .arg(folder)
            .args(redis)
            .args(postgres);
        Self::start(command, addr, addr, "/const")
    }

    fn start(mut command: Command, addr: SocketAddr, operator: SocketAddr, ready_path: &str) -> Self {
        // SAFETY: sched_setaffinity is async-signal-safe and touches nothing of this process.
        unsafe { command.pre_exec(|| pin_to(0)) };
        let started = Instant::now();
        let child = command.stdin(Stdio::null()).spawn().expect("the server starts");
        let mut server = Server {
            child,
            addr,
            operator,
            ready_after: Duration::ZERO,
        };
        while server
            .get(operator, ready_path)
            .is_none_or(|answer| !answer.starts_with("HTTP/1.1 200"))
        {
            if let Ok(Some(status)) = server.child.try_wait() {
                panic!("the server ended at its start: {status}");
            }
            assert!(
                started.elapsed() < Duration::from_secs(30),
                "the server is not ready after 30 s"
            );
            std::hint::spin_loop();
        }
        server.ready_after = started.elapsed();
        server
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory in MiB.
    pub(crate) fn resident_mib(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap_or_default();
        let kib: f64 = line
            .split_whitespace()
            .nth(1)
            .and_then(|kib| kib.parse().ok())
            .unwrap_or(f64::NAN);
        kib / 1024.0
    }

    /// One request on a connection of its own; `None` when the server does not answer.
    pub(crate) fn get(&self, addr: SocketAddr, path: &str) -> Option<String> {
        exchange(addr, &get_request(addr, path))
    }
}

/// Sends a request that asks for the connection to be closed, and reads the whole answer.
pub(crate) fn exchange(addr: SocketAddr, request: &[u8]) -> Option<String> {
    let mut stream = TcpStream::connect(addr).ok()?;
    stream.write_all(request).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// Sends requests one after the other on one connection, each answered with a 200.
pub(crate) fn exchange_all(addr: SocketAddr, requests: impl Iterator<Item = Vec<u8>>) {
    let mut stream = TcpStream::connect(addr).expect("the server accepts connections");
    stream.set_nodelay(true).expect("nodelay");
    let (mut answer, mut scratch) = (Vec::new(), [0; 1 << 14]);
    for request in requests {
        stream.write_all(&request).expect("the server reads");
        answer.clear();
        let status = loop {
            let count = stream.read(&mut scratch).expect("the server answers");
            assert!(count > 0, "the server closed the connection");
            answer.extend_from_slice(&scratch[..count]);
            if let Some(status) = crate::load::complete(&answer) {
                break status;
            }
        };
        assert_eq!(status, 200);
    }
}

fn get_request(addr: SocketAddr, path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n\r\n").into_bytes()
}

pub(crate) fn free_addr() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a free port")
}

/// Pins the calling thread, and what it spawns, to one core.
pub(crate) fn pin_to(core: usize) -> std::io::Result<()> {
    // SAFETY: the set is a plain bit field, zeroed before use, and lives through the call.
    let result = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(core, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set)
    };
    if result == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}
