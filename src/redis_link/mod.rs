//! A connection to Redis that is kept up: to a single server, with or without TLS, or to a cluster.
//!
//! ```text
//! away ──connected──▶ up ──closed, or no answer to a ping──▶ away
//!   └──refused, timed out: back-off 50 ms to 1 s──┘
//! ```
//!
//! - A task of its own connects, so a request never waits for that: while the link is away every call fails at once.
//! - The order in which the link goes down is what a cache behind it stands on: first nobody gets the connection any more,
//!   then [`LinkObserver::down`] is called, then a new one is made, then [`LinkObserver::up`] is called, and only then is the new
//!   one handed out.
//! - What the server pushes is handed on inline by whatever reads the connection, before it reads the next reply. What that is, a link
//!   asks for anew with each connection: reports of changes ([`LinkObserver`]), or the messages of a channel ([`Link::subscribe`]).

mod place;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use redis::aio::MultiplexedConnection;
use redis::cluster_async::ClusterConnection;
use redis::{Cmd, FromRedisValue, Pipeline, PushInfo, PushKind, RedisError, ScriptInvocation, Value};
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

pub(crate) use place::Place;

/// Higher: a server that swallows packets holds up the next attempt for longer. Lower: a busy server is given up.
const CONNECT: Duration = Duration::from_secs(2);

/// The longest that a reply may take; who reads for a shopper waits for much less. Higher: a lane notices a stuck server
/// later. Lower: a big batch on a busy server fails for nothing.
const RESPONSE: Duration = Duration::from_secs(2);

/// How often a quiet connection is tried. Higher: a peer that vanished without a word, and with it what it would have
/// reported, is noticed later: together with [`PONG`] this bounds how long a cache may be stale then.
const PING: Duration = Duration::from_secs(1);

/// How long a ping may take. Lower: a pause of a healthy server empties the caches in front of it.
const PONG: Duration = Duration::from_secs(1);

/// The first and the longest pause between attempts to connect.
const BACKOFF: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(1)];

/// A connection; a clone shares it.
#[derive(Clone)]
pub(crate) enum Connection {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Connection {
    pub(crate) async fn query<T: FromRedisValue>(&mut self, command: &Cmd) -> Result<T, RedisError> {
        match self {
            Connection::Single(connection) => command.query_async(connection).await,
            Connection::Cluster(connection) => command.query_async(connection).await,
        }
    }

    /// One script. Where the server does not know it, it is sent whole; nothing happened before that.
    pub(crate) async fn invoke<T: FromRedisValue>(
        &mut self,
        call: &ScriptInvocation<'_>,
    ) -> Result<T, RedisError> {
        match self {
            Connection::Single(connection) => call.invoke_async(connection).await,
            Connection::Cluster(connection) => call.invoke_async(connection).await,
        }
    }

    /// Commands in one go. On a cluster, all of one slot.
    pub(crate) async fn pipeline<T: FromRedisValue>(&mut self, pipeline: &Pipeline) -> Result<T, RedisError> {
        match self {
            Connection::Single(connection) => pipeline.query_async(connection).await,
            Connection::Cluster(connection) => pipeline.query_async(connection).await,
        }
    }

    /// Returns when the connection is of no use any more.
    async fn until_dead(&mut self, closed: &Notify) {
        let Connection::Single(_) = self else {
            // It finds and leaves its nodes by itself.
            return std::future::pending().await;
        };
        loop {
            tokio::select! {
                () = closed.notified() => return,
                () = sleep(PING) => {}
            }
            let ping = redis::cmd("PING");
            if !matches!(timeout(PONG, self.query::<()>(&ping)).await, Ok(Ok(()))) {
                return;
            }
        }
    }
}

/// Told of what becomes of a link whose server reports what changes. Called inline: an implementation returns at once.
pub(crate) trait LinkObserver: Send + Sync {
    /// From now on every change of what is read on the link is reported, until [`LinkObserver::down`].
    fn up(&self);

    /// Changes may go unreported.
    fn down(&self);

    /// These keys changed, or were evicted or expired; `None` where it may be any.
    fn changed(&self, keys: Option<&[Value]>);
}

/// Takes a message of a channel. Called inline: it returns at once.
pub(crate) type Hear = dyn Fn(&[u8]) + Send + Sync;

/// What the server is to push on a link.
#[derive(Clone)]
enum Pushes {
    Nothing,
    Changes(Arc<dyn LinkObserver>),
    /// What is published on this channel.
    Messages(Arc<str>, Arc<Hear>),
}

/// Hears what the server pushes on one connection.
struct Hook {
    pushes: Pushes,
    closed: Arc<Notify>,
}

impl Hook {
    fn receive(&self, push: &PushInfo) {
        match (&push.kind, &self.pushes) {
            (PushKind::Invalidate, Pushes::Changes(observer)) => match &push.data[..] {
                [Value::Array(keys)] => observer.changed(Some(keys)),
                // Nil: the server was flushed.
                _ => observer.changed(None),
            },
            (PushKind::Message, Pushes::Messages(_, hear)) => {
                if let [_, Value::BulkString(message)] = &push.data[..] {
                    hear(message);
                }
            }
            (PushKind::Disconnection, _) => self.closed.notify_one(),
            _ => {}
        }
    }
}

/// There is no connection now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not connected")]
pub struct Away;

/// The link; dropped, it is cut.
pub(crate) struct Link {
    current: Arc<ArcSwapOption<Connection>>,
    is_up: watch::Receiver<bool>,
    keeper: AbortHandle,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").finish_non_exhaustive()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl Link {
    /// Starts to connect. `observer` is told what the server reports of what was read on this link; a cluster takes none.
    /// `purpose` says in log lines what the link is for.
    pub(crate) fn keep(place: Place, observer: Option<Arc<dyn LinkObserver>>, purpose: &'static str) -> Link {
        let pushes = observer.map_or(Pushes::Nothing, Pushes::Changes);
        Self::start(place, pushes, purpose, Some(RESPONSE))
    }

    /// The same for commands whose caller waits for each for a short time only: there is no second timer for them. A server that does
    /// not answer pings is given up as ever.
    pub(crate) fn keep_for_look_ups(
        place: Place,
        observer: Option<Arc<dyn LinkObserver>>,
        purpose: &'static str,
    ) -> Link {
        let pushes = observer.map_or(Pushes::Nothing, Pushes::Changes);
        Self::start(place, pushes, purpose, None)
    }

    /// Starts to connect, and has `hear` called with what is published on `channel` for as long as the link is up. What
    /// is published while it is away is missed. Not for [`Place::Cluster`], whose links hear nothing.
    pub(crate) fn subscribe(place: Place, channel: Arc<str>, hear: Arc<Hear>, purpose: &'static str) -> Link {
        Self::start(place, Pushes::Messages(channel, hear), purpose, Some(RESPONSE))
    }

    fn start(place: Place, pushes: Pushes, purpose: &'static str, response: Option<Duration>) -> Link {
        let current = Arc::new(ArcSwapOption::empty());
        let (is_up, up) = watch::channel(false);
        let keeper = Keeper {
            place,
            pushes,
            purpose,
            response,
            current: Arc::clone(&current),
            is_up,
        };
        Link {
            current,
            is_up: up,
            keeper: tokio::spawn(keeper.run()).abort_handle(),
        }
    }

    /// Returns once the link is up.
    pub(crate) async fn wait(&self) {
        // It fails only when the keeper is gone, which is when the link is.
        let _ = self.is_up.clone().wait_for(|is_up| *is_up).await;
    }

    /// # Errors
    /// At once, where the link is away.
    pub(crate) fn connection(&self) -> Result<Connection, Away> {
        match &*self.current.load() {
            Some(connection) => Ok(Connection::clone(connection)),
            None => Err(Away),
        }
    }
}

struct Keeper {
    place: Place,
    pushes: Pushes,
    purpose: &'static str,
    response: Option<Duration>,
    current: Arc<ArcSwapOption<Connection>>,
    is_up: watch::Sender<bool>,
}

impl Keeper {
    async fn run(self) {
        let [first, longest] = BACKOFF;
        let mut pause = first;
        let mut is_refused = false;
        let mut attempts = 0..;
        loop {
            let attempt = attempts.next().unwrap_or_default();
            let closed = Arc::new(Notify::new());
            let hook = Hook {
                pushes: self.pushes.clone(),
                closed: Arc::clone(&closed),
            };
            // The client's own limit covers the connect, not the greetings after it.
            let connect = self.place.connect(attempt, hook, self.response);
            match timeout(CONNECT + RESPONSE, connect).await {
                Ok(Ok(connection)) => {
                    pause = first;
                    is_refused = false;
                    self.serve(connection, &closed).await;
                }
                Ok(Err(error)) if is_refusal(&error) && !is_refused => {
                    is_refused = true;
                    let code = error.code().unwrap_or_default();
                    tracing::warn!(
                        "the Redis for {} refuses this node ({code}); it is tried again",
                        self.purpose
                    );
                }
                Ok(Err(error)) => {
                    tracing::debug!(error = error.category(), "no connection for {}", self.purpose);
                }
                Err(_) => tracing::debug!(error = "timeout", "no connection for {}", self.purpose),
            }
            sleep(pause).await;
            pause = (pause * 2).min(longest);
        }
    }

    /// Hands out `connection` for as long as it lives.
    async fn serve(&self, mut connection: Connection, closed: &Notify) {
        if let Pushes::Changes(observer) = &self.pushes {
            observer.up();
        }
        self.current.store(Some(Arc::new(connection.clone())));
        self.is_up.send_replace(true);
        connection.until_dead(closed).await;
        self.current.store(None);
        self.is_up.send_replace(false);
        if let Pushes::Changes(observer) = &self.pushes {
            observer.down();
        }
        tracing::warn!("the connection for {} is lost", self.purpose);
    }
}

/// Whether the server does not know this node, or forbids what it asks for: only a person can help.
fn is_refusal(error: &RedisError) -> bool {
    matches!(error.code(), Some("NOPERM" | "WRONGPASS" | "NOAUTH"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_from_trouble_that_passes() {
        let answered = |answer: &[u8]| {
            let value = redis::parse_redis_value(answer).unwrap();
            value.extract_error().unwrap_err()
        };
        for refusal in [
            &b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"[..],
            b"-NOAUTH HELLO must be called with the client already authenticated\r\n",
            b"-NOPERM No permissions to access a channel\r\n",
        ] {
            assert!(is_refusal(&answered(refusal)), "{refusal:?}");
        }
        for trouble in [
            &b"-LOADING Redis is loading the dataset in memory\r\n"[..],
            b"-ERR max number of clients reached\r\n",
        ] {
            assert!(!is_refusal(&answered(trouble)), "{trouble:?}");
        }
    }
}
