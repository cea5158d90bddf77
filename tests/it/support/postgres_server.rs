//! A PostgreSQL server of one test, on a free port and in a folder of its own, both gone with the value.
//!
//! It can be paused, killed and started again on its port and folder. fsync stays on, as it does where it matters. The
//! server is a family of processes, and every one of them is paused or killed, as with a machine that stands still or
//! loses its power. They are found in /proc, so this wants Linux.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use cartwright::warehouse::{self, WarehouseConfig};
use sqlx::{Connection as _, PgConnection};
use tempfile::TempDir;

use super::postgres::{command, local_url, set_up, text};
use super::redis::free_port;

/// Longer than any start takes on a busy machine; a test fails with a reason instead of hanging.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running `postgres` with a migrated database. Killed when it goes out of scope.
#[derive(Debug)]
pub struct PostgresServer {
    postmaster: Option<Child>,
    port: u16,
    folder: TempDir,
}

impl PostgresServer {
    pub async fn start() -> PostgresServer {
        adopt_orphans();
        let folder = tempfile::tempdir().unwrap();
        set_up(folder.path());
        let mut server = PostgresServer {
            postmaster: None,
            port: free_port(),
            folder,
        };
        let started = Instant::now();
        while !server.launch().await {
            // Somebody took the port meanwhile.
            assert!(started.elapsed() < PATIENCE, "postgres does not start");
            server.port = free_port();
        }
        let config = WarehouseConfig {
            url: server.url(),
            migrate: true,
        };
        warehouse::open(&config).await.unwrap().close().await;
        server
    }

    pub fn url(&self) -> String {
        local_url(self.port, "postgres")
    }

    /// SIGSTOP: connections are still taken by the system, and nothing is answered, until resumed.
    pub fn pause(&self) {
        let postmaster = self.postmaster();
        signal(postmaster, libc::SIGSTOP);
        // Once it stands still it forks no more, so that its children are all there are.
        let started = Instant::now();
        while stat(postmaster).is_some_and(|(state, _)| state != 'T') {
            assert!(started.elapsed() < PATIENCE, "postgres does not stand still");
            std::thread::park_timeout(Duration::from_millis(1));
        }
        for child in children(postmaster) {
            signal(child, libc::SIGSTOP);
        }
    }

    pub fn resume(&self) {
        let postmaster = self.postmaster();
        for process in children(postmaster).into_iter().chain([postmaster]) {
            signal(process, libc::SIGCONT);
        }
    }

    /// SIGKILL: nothing is flushed, nothing is said.
    pub fn kill(&mut self) {
        if self.postmaster.is_none() {
            return;
        }
        // Paused first: children of a postmaster that is gone are no longer known as its own.
        self.pause();
        let children = children(self.postmaster());
        let Some(mut postmaster) = self.postmaster.take() else {
            return;
        };
        postmaster.kill().unwrap();
        for child in &children {
            signal(*child, libc::SIGKILL);
        }
        postmaster.wait().unwrap();
        // No new server starts on shared memory that an old one still holds.
        for child in children {
            // SAFETY: waits for one process, and wants to know nothing of its end.
            unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
        }
    }

    /// Starts again on the same port and folder, after a [`kill`](Self::kill), and waits until it answers.
    pub async fn restart(&mut self) {
        self.kill();
        let started = Instant::now();
        while !self.launch().await {
            assert!(
                started.elapsed() < PATIENCE,
                "postgres does not start again on port {}",
                self.port
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn postmaster(&self) -> i32 {
        let postmaster = self.postmaster.as_ref().expect("the server runs");
        i32::try_from(postmaster.id()).unwrap()
    }

    /// Starts the process and waits for its first answer; false when it ended before that.
    async fn launch(&mut self) -> bool {
        let folder = text(self.folder.path());
        let port = self.port.to_string();
        let mut postmaster = command("postgres")
            .args(["-D", folder, "-k", folder, "-h", "127.0.0.1", "-p", &port])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let url = self.url();
        let started = Instant::now();
        loop {
            if postmaster.try_wait().unwrap().is_some() {
                return false;
            }
            let attempt = tokio::time::timeout(PATIENCE, PgConnection::connect(&url)).await;
            // A stranger on this port would answer as well, but then the process ends.
            if matches!(attempt, Ok(Ok(_))) && postmaster.try_wait().unwrap().is_none() {
                self.postmaster = Some(postmaster);
                return true;
            }
            assert!(started.elapsed() < PATIENCE, "postgres does not answer");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Children of a postmaster that is killed become this process's own, to be waited for: not every container has an init
/// that does it.
fn adopt_orphans() {
    #[cfg(target_os = "linux")]
    // SAFETY: sets a flag of this process.
    unsafe {
        libc::prctl(libc::PR_SET_CHILD_SUBREAPER, libc::c_ulong::from(true))
    };
}

fn signal(process: i32, signal: i32) {
    // SAFETY: signals the postmaster, which was not waited for, or a child of it, which it could not wait for when it
    // stands still; so their process ids are still their own.
    let _ = unsafe { libc::kill(process, signal) };
}

/// What `/proc` says of a process: a letter for its state, and its parent.
fn stat(process: i32) -> Option<(char, i32)> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name before it may hold anything.
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

fn children(of: i32) -> Vec<i32> {
    let processes = std::fs::read_dir("/proc").unwrap();
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|process| stat(*process).is_some_and(|(_, parent)| parent == of))
        .collect()
}
