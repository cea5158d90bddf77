//! The real binary as a child process, to be killed, terminated and started again.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

pub const SERVER_KEY: &str = "sk_live_process_0123456789";

/// Longer than any start or stop takes on a busy machine; a test fails with a reason instead of hanging.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running `cartwright serve`. Killed when it goes out of scope.
pub struct Process {
    child: Child,
    pub addr: SocketAddr,
    pub operator: SocketAddr,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    /// Starts on the embedded stack in `folder` and waits until ready.
    pub fn start(folder: &Path) -> Self {
        Process::start_logging(folder, "warn", Stdio::inherit())
    }

    /// The same, with one core to run on: the one that this thread is on.
    pub fn start_on_one_core(folder: &Path) -> Self {
        // SAFETY: the sets are plain bit fields, zeroed before use, and live through the calls; only this thread is moved.
        unsafe {
            let size = size_of::<libc::cpu_set_t>();
            let mut before: libc::cpu_set_t = std::mem::zeroed();
            assert_eq!(libc::sched_getaffinity(0, size, &raw mut before), 0);
            let mut one: libc::cpu_set_t = std::mem::zeroed();
            libc::CPU_SET(usize::try_from(libc::sched_getcpu()).unwrap(), &mut one);
            assert_eq!(libc::sched_setaffinity(0, size, &raw const one), 0);
            let process = Process::start(folder);
            assert_eq!(libc::sched_setaffinity(0, size, &raw const before), 0);
            process
        }
    }

    /// The same, with log lines of `level` to `log`.
    pub fn start_logging(folder: &Path, level: &str, log: Stdio) -> Self {
        Process::start_with(folder, level, log, &[])
    }

    /// Starts with more settings, as environment variables.
    pub fn start_with(folder: &Path, level: &str, log: Stdio, settings: &[(String, String)]) -> Self {
        let (addr, operator) = (free_addr(), free_addr());
        let child = Command::new(env!("CARGO_BIN_EXE_cartwright"))
            .arg("serve")
            .env("CARTWRIGHT_DATA_DIR", folder)
            .env("CARTWRIGHT_LISTEN", addr.to_string())
            .env("CARTWRIGHT_OPERATOR_LISTEN", operator.to_string())
            .env("CARTWRIGHT_SERVER_KEY", SERVER_KEY)
            .env("CARTWRIGHT_LOG", level)
            // A machine's own stores are none of a test's.
            .env_remove("REDIS_URL")
            .env_remove("DATABASE_URL")
            .envs(settings.iter().map(|(name, value)| (name, value)))
            .current_dir(folder)
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the binary starts");
        let mut process = Process {
            child,
            addr,
            operator,
        };
        let started = Instant::now();
        while Client::connect(operator)
            .and_then(|mut client| client.get("/health/ready"))
            .is_none_or(|a| a.0 != 200)
        {
            assert!(
                process.child.try_wait().unwrap().is_none(),
                "the server ended at its start"
            );
            assert!(started.elapsed() < PATIENCE, "the server is not ready");
            std::thread::park_timeout(Duration::from_millis(10));
        }
        process
    }

    /// The most memory that the process has held so far; `None` where the system does not say.
    pub fn peak_memory_bytes(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kib * 1024)
    }

    /// SIGKILL: nothing is flushed, nothing is said.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and the exit status.
    pub fn terminate(self) -> ExitStatus {
        self.signal();
        self.ended()
    }

    /// SIGTERM.
    pub fn signal(&self) {
        // SAFETY: signals a child that was not waited for, so its process id is still its own.
        let sent = unsafe { libc::kill(i32::try_from(self.child.id()).unwrap(), libc::SIGTERM) };
        assert_eq!(sent, 0);
    }

    /// Waits for the end.
    pub fn ended(mut self) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(started.elapsed() < PATIENCE, "the server does not stop");
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }
}

/// One keep-alive connection. Every method answers `None` once the server is gone.
pub struct Client {
    stream: TcpStream,
    host: SocketAddr,
}

impl Client {
    pub fn connect(addr: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect(addr).ok()?;
        stream.set_nodelay(true).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        Some(Client { stream, host: addr })
    }

    pub fn get(&mut self, path: &str) -> Option<(u16, String)> {
        self.exchange(&format!(
            "GET {path} HTTP/1.1\r\nhost: {}\r\n{}\r\n",
            self.host,
            authorization()
        ))
    }

    pub fn post(&mut self, path: &str, body: &str) -> Option<(u16, String)> {
        self.exchange(&format!(
            "POST {path} HTTP/1.1\r\nhost: {}\r\n{}content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            self.host,
            authorization(),
            body.len()
        ))
    }

    fn exchange(&mut self, request: &str) -> Option<(u16, String)> {
        self.stream.write_all(request.as_bytes()).ok()?;
        let mut answer = Vec::new();
        let mut scratch = [0; 16 << 10];
        loop {
            if let Some(whole) = whole_answer(&answer) {
                return Some(whole);
            }
            match self.stream.read(&mut scratch) {
                Ok(0) | Err(_) => {
                    // An answer that was begun must be finished, unless the process was killed; the caller knows.
                    return if answer.is_empty() {
                        None
                    } else {
                        Some((0, String::new()))
                    };
                }
                Ok(count) => answer.extend_from_slice(&scratch[..count]),
            }
        }
    }
}

fn authorization() -> String {
    format!("authorization: Bearer {SERVER_KEY}\r\n")
}

/// Status and body of an answer with a `content-length`, once all of it is there.
fn whole_answer(answer: &[u8]) -> Option<(u16, String)> {
    let head_len = answer.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&answer[..head_len]).unwrap();
    let length: usize = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .map_or(0, |(_, value)| value.trim().parse().unwrap());
    let body = answer.get(head_len..head_len + length)?;
    Some((
        head[9..12].parse().unwrap(),
        String::from_utf8(body.to_vec()).unwrap(),
    ))
}

pub fn free_addr() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
