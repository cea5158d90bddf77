//! Connections for look-ups by key, apart from the pool.
//!
//! Why: the driver's pool asks a connection for a sign of life whenever it is given back, in a task of its own, for it
//! cannot know what became of the statement. A look-up is one statement outside any transaction, so here its outcome
//! says it all:
//!
//! - It ended well: the connection is as good as new and goes back as it is, without a round trip.
//! - It failed, took too long, or its caller went away in the middle: the connection goes down with it, and the line is
//!   closed. So one that hangs is never handed out again, however the look-up ended.
//! - A server that was restarted has closed what lay idle here. A look-up that finds its line closed asks once more on a
//!   new one, and what else lies idle is dropped: nobody notices, and no connection has to be asked whether it lives.
//! - One that lay idle for long is not used again: a firewall may have forgotten it, which no error would tell.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions as _, Connection as _, Error, Executor as _};
use tokio::sync::Semaphore;

use super::error::Failure;
use super::profiles::{self, Stored};
use crate::domain::ids::SubjectId;
use crate::domain::profile::Version;

/// A connection serves thousands in a second; more are of use only where some of them are slow.
const CONNECTIONS: usize = 8;

/// Higher: a look-up may wait in vain on a line that is dead without having been closed. Lower: a quiet shop connects anew.
const MAX_IDLE: Duration = Duration::from_secs(60);

/// A backend grows with what it has ever read of the catalogue, and a name may lead elsewhere by now.
const MAX_AGE: Duration = Duration::from_secs(1_800);

/// How long a server may take to take a connection; the look-up's own limit bounds the rest.
const CONNECT: Duration = Duration::from_secs(1);

/// A look-up that takes this long has lost its caller; the server should stop as well. Every look-up reads by key, and the
/// planner is not to think about that anew each time.
const SETTINGS: &str = "set statement_timeout = '2s'; set default_transaction_read_only = on; \
                        set plan_cache_mode = force_generic_plan; set enable_seqscan = off; \
                        set enable_bitmapscan = off; set jit = off";

/// See the module.
pub(super) struct Lookups {
    options: PgConnectOptions,
    free: Semaphore,
    /// The most recently used is the last.
    idle: Mutex<Vec<Line>>,
}

#[derive(Debug)]
struct Line {
    conn: PgConnection,
    made: Instant,
    used: Instant,
}

impl std::fmt::Debug for Lookups {
    /// The options hold a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lookups").finish_non_exhaustive()
    }
}

impl Lookups {
    pub(super) fn new(options: PgConnectOptions) -> Self {
        Lookups {
            options,
            free: Semaphore::new(CONNECTIONS),
            idle: Mutex::default(),
        }
    }

    /// The stored documents of `subjects`, in no order.
    pub(super) async fn documents(
        &self,
        subjects: &[SubjectId],
    ) -> Result<Vec<(SubjectId, Version, Bytes)>, Failure> {
        let found = self.stored(subjects).await?;
        found.into_iter().map(Stored::document).collect()
    }

    async fn stored(&self, subjects: &[SubjectId]) -> Result<Vec<Stored>, Error> {
        let _permit = self.free.acquire().await.map_err(|_| Error::PoolClosed)?;
        if let Some(line) = self.take_idle() {
            match self.ask(line, subjects).await {
                Err(error) if is_line_lost(&error) => self.idle().clear(),
                answered => return answered,
            }
        }
        let line = self.connect().await?;
        self.ask(line, subjects).await
    }

    /// Hangs up.
    pub(super) async fn close(&self) {
        self.free.close();
        let idle = std::mem::take(&mut *self.idle());
        for line in idle {
            // The server notices in any case.
            let _ = tokio::time::timeout(CONNECT, line.conn.close()).await;
        }
    }

    /// While it waits, the line is in its hands alone: dropped half-way, it takes the line along.
    async fn ask(&self, mut line: Line, subjects: &[SubjectId]) -> Result<Vec<Stored>, Error> {
        let found = profiles::stored(&mut line.conn, subjects).await?;
        line.used = Instant::now();
        self.idle().push(line);
        Ok(found)
    }

    fn take_idle(&self) -> Option<Line> {
        let mut idle = self.idle();
        // The others are older.
        let line = idle.pop().filter(|line| line.used.elapsed() < MAX_IDLE);
        if line.is_none() {
            idle.clear();
        }
        line.filter(|line| line.made.elapsed() < MAX_AGE)
    }

    async fn connect(&self) -> Result<Line, Error> {
        let connected = async {
            let mut conn = self.options.connect().await?;
            conn.execute(SETTINGS).await?;
            Ok::<_, Error>(conn)
        };
        let conn = tokio::time::timeout(CONNECT, connected)
            .await
            .map_err(|_| Error::PoolTimedOut)??;
        let now = Instant::now();
        Ok(Line {
            conn,
            made: now,
            used: now,
        })
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Line>> {
        // Whole between any two statements.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the server, or something on the way to it, has hung up: the statement was not at fault.
fn is_line_lost(error: &Error) -> bool {
    match error {
        Error::Io(_) | Error::Protocol(_) => true,
        // admin_shutdown, crash_shutdown, idle_session_timeout
        Error::Database(error) => {
            matches!(error.code().as_deref(), Some("57P01" | "57P02" | "57P05"))
        }
        _ => false,
    }
}
