//! Listeners: accept connections, serve a service on them, and stop without cutting an answer short.
//!
//! - Bounded: at most [`Limits::connections`] are open; more wait in the kernel's backlog. A head must be
//!   complete within [`HEAD_TIMEOUT`] of the last answer, and that answer taken, so that connections which drip bytes, or
//!   idle, give their place back. A round every [`ROUND`] looks for them, so they stay for up to two rounds longer: a timer
//!   of each connection's own, armed and disarmed for every request, costs more than all else in here.
//! - Stopping has three steps. *Linger*: everything is still accepted and served, and every answer tells its
//!   connection to close, so that a busy keep-alive client changes over to another node between two requests
//!   instead of writing into a closed socket. *Close*: no new connections, idle ones are closed, requests under
//!   way are finished. *Cut*: what is unfinished at the end of the grace period is dropped.
//!
//! It knows nothing of what it serves; admission and time limits of a request are the service's layers.

mod connection;

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::response::Response;
use hyper::body::Incoming;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;
use tower::Service;

use self::connection::{Line, Order, is_under_way};

/// Higher lets slow or idle connections hold their places longer; lower closes keep-alive connections that a
/// checkout page would have used again.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Higher lets them hold their places longer than that; lower looks at every connection more often.
const ROUND: Duration = Duration::from_secs(5);
/// Higher makes every stop slower; lower closes connections on which a request is already on its way.
const LINGER: Duration = Duration::from_millis(200);
/// How long to wait when the process is out of file descriptors: long enough for one to be given back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// What a listener serves, such as a router. It must always be ready: what is too busy says so in its answer.
pub trait Serve:
    Service<Request<Incoming>, Response = Response, Error = Infallible, Future: Send> + Clone + Send + 'static
{
}

impl<S> Serve for S where
    S: Service<Request<Incoming>, Response = Response, Error = Infallible, Future: Send>
        + Clone
        + Send
        + 'static
{
}

/// Bounds of a listener.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The most connections open at once.
    pub connections: usize,
    /// How long a stop may take in all.
    pub grace: Duration,
}

/// A bound socket, not yet serving.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    addr: SocketAddr,
}

impl Listener {
    /// Binds `HOST:PORT`; port 0 takes a free one.
    ///
    /// # Errors
    /// When the host has no address or none of them can be bound.
    pub async fn bind(addr: &str) -> io::Result<Self> {
        let socket = TcpListener::bind(addr).await?;
        let addr = socket.local_addr()?;
        Ok(Listener { socket, addr })
    }

    /// The address bound.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Serves `service` until `stop` is cancelled, then stops in order. Returns whether every request was
    /// finished within the grace period.
    pub async fn serve(self, service: impl Serve, limits: Limits, stop: CancellationToken) -> bool {
        let mut open = Connections::default();
        let mut round_at = Instant::now() + ROUND;
        let linger = LINGER.min(limits.grace / 2);
        let mut linger_until = None;
        loop {
            tokio::select! {
                accepted = accept(&self.socket), if open.tasks.len() < limits.connections => match accepted {
                    Ok(stream) => open.add(stream, service.clone()),
                    Err(_) => sleep(ACCEPT_PAUSE).await,
                },
                () = open.one_ended() => {}
                () = sleep_until(round_at) => {
                    round_at = Instant::now() + ROUND;
                    open.make_round();
                }
                () = stop.cancelled(), if linger_until.is_none() => {
                    open.forget_ended();
                    if open.tasks.is_empty() {
                        break;
                    }
                    open.tell(Order::Linger);
                    linger_until = Some(Instant::now() + linger);
                }
                () = until(linger_until) => break,
            }
        }
        drop(self.socket);
        open.tell(Order::Close);
        let lingered = linger_until.map_or(Duration::ZERO, |_| linger);
        let patience = Instant::now() + limits.grace.saturating_sub(lingered);
        let finished = timeout_at(patience, open.all_ended()).await.is_ok();
        open.tell(Order::Cut);
        open.all_ended().await;
        finished
    }
}

/// The next connection.
async fn accept(socket: &TcpListener) -> io::Result<TcpStream> {
    let (stream, _) = socket.accept().await?;
    // Answers are written whole; waiting for more to send would only add the client's delayed acknowledgement.
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

/// All open connections.
#[derive(Default)]
struct Connections {
    tasks: JoinSet<()>,
    seen: HashMap<Id, Seen>,
    order: Order,
}

/// A connection as the last round found it.
struct Seen {
    line: Arc<Line>,
    turns: usize,
    /// Since when it has made no further turn, as far as rounds can tell.
    since: Instant,
}

impl Connections {
    fn add(&mut self, stream: TcpStream, service: impl Serve) {
        let line = Arc::new(Line::new(self.order));
        let seen = Seen {
            line: Arc::clone(&line),
            turns: line.turns(),
            since: Instant::now(),
        };
        let task = async move { connection::serve(stream, service, &line).await };
        self.seen.insert(self.tasks.spawn(task).id(), seen);
    }

    fn tell(&mut self, order: Order) {
        self.order = order;
        for seen in self.seen.values() {
            seen.line.tell(order);
        }
    }

    /// Cuts the connections whose next head is overdue.
    fn make_round(&mut self) {
        let now = Instant::now();
        for seen in self.seen.values_mut() {
            let turns = seen.line.turns();
            if turns != seen.turns {
                (seen.turns, seen.since) = (turns, now);
            } else if !is_under_way(turns) && now - seen.since >= HEAD_TIMEOUT {
                seen.line.tell(Order::Cut);
            }
        }
    }

    /// Waits for a connection to end; forever, where there is none.
    async fn one_ended(&mut self) {
        match self.tasks.join_next_with_id().await {
            Some(ended) => self.forget(ended),
            None => std::future::pending().await,
        }
    }

    fn forget_ended(&mut self) {
        while let Some(ended) = self.tasks.try_join_next_with_id() {
            self.forget(ended);
        }
    }

    fn forget(&mut self, ended: Result<(Id, ()), JoinError>) {
        let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
        self.seen.remove(&id);
    }

    async fn all_ended(&mut self) {
        while !self.tasks.is_empty() {
            self.one_ended().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::Router;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";

    struct Served {
        addr: SocketAddr,
        stop: CancellationToken,
        served: tokio::task::JoinHandle<bool>,
        requests: Arc<AtomicUsize>,
    }

    /// Serves a handler that takes `takes_ms`.
    async fn serve(takes_ms: u64, limits: Limits) -> Served {
        let requests = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&requests);
        let handler = move || async move {
            seen.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(takes_ms)).await;
            "answer"
        };
        let listener = Listener::bind("127.0.0.1:0").await.unwrap();
        let (addr, stop) = (listener.addr(), CancellationToken::new());
        let served =
            tokio::spawn(listener.serve(Router::new().route("/", get(handler)), limits, stop.clone()));
        Served {
            addr,
            stop,
            served,
            requests,
        }
    }

    async fn under_way(served: &Served) -> TcpStream {
        let mut stream = TcpStream::connect(served.addr).await.unwrap();
        stream.write_all(REQUEST).await.unwrap();
        while served.requests.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        stream
    }

    async fn rest(stream: &mut TcpStream) -> String {
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text).await;
        text
    }

    fn limits(grace_ms: u64) -> Limits {
        Limits {
            connections: 8,
            grace: Duration::from_millis(grace_ms),
        }
    }

    #[tokio::test]
    async fn a_request_under_way_is_finished_and_its_connection_told_to_close() {
        let served = serve(500, limits(10_000)).await;
        let mut stream = under_way(&served).await;
        served.stop.cancel();
        let answer = rest(&mut stream).await;
        assert!(
            answer.ends_with("answer") && answer.contains("connection: close"),
            "{answer}"
        );
        assert!(served.served.await.unwrap());
        assert!(
            TcpStream::connect(served.addr).await.is_err(),
            "the socket is closed"
        );
    }

    #[tokio::test]
    async fn an_idle_connection_is_served_once_more_while_lingering_and_then_closed() {
        let served = serve(0, limits(10_000)).await;
        let mut busy = TcpStream::connect(served.addr).await.unwrap();
        let mut idle = TcpStream::connect(served.addr).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        served.stop.cancel();
        tokio::time::sleep(Duration::from_millis(20)).await;
        busy.write_all(REQUEST).await.unwrap();
        assert!(rest(&mut busy).await.contains("connection: close"));
        assert_eq!(rest(&mut idle).await, "");
        assert!(served.served.await.unwrap());
    }

    #[tokio::test]
    async fn a_request_that_outlasts_the_grace_period_is_cut_off_and_reported() {
        let served = serve(60_000, limits(100)).await;
        let mut stream = under_way(&served).await;
        served.stop.cancel();
        assert!(!served.served.await.unwrap());
        assert_eq!(rest(&mut stream).await, "");
    }

    #[tokio::test]
    async fn connections_beyond_the_limit_wait_for_a_place() {
        let served = serve(
            0,
            Limits {
                connections: 1,
                grace: Duration::from_secs(10),
            },
        )
        .await;
        let first = under_way(&served).await;
        let mut second = TcpStream::connect(served.addr).await.unwrap();
        second.write_all(REQUEST).await.unwrap();
        let mut byte = [0];
        let waited = tokio::time::timeout(Duration::from_millis(100), second.read(&mut byte)).await;
        assert!(
            waited.is_err(),
            "the second connection was served beside the first"
        );
        drop(first);
        assert_eq!(second.read(&mut byte).await.unwrap(), 1);
        served.stop.cancel();
        drop(second);
        assert!(served.served.await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_drips_or_idles_gives_its_place_back() {
        let served = serve(0, limits(10_000)).await;
        let mut idle = under_way(&served).await;
        let mut dripping = TcpStream::connect(served.addr).await.unwrap();
        let started = Instant::now();
        let drips = async {
            dripping.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
            while dripping.write_all(b"a: b\r\n").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            started.elapsed()
        };
        let ((), dripped_for) = tokio::join!(async { drop(rest(&mut idle).await) }, drips);
        let longest = HEAD_TIMEOUT + 3 * ROUND;
        assert!((HEAD_TIMEOUT..longest).contains(&dripped_for), "{dripped_for:?}");
        served.stop.cancel();
        assert!(served.served.await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_may_take_longer_than_a_head() {
        let takes = HEAD_TIMEOUT + 4 * ROUND;
        let served = serve(u64::try_from(takes.as_millis()).unwrap(), limits(10_000)).await;
        let mut stream = under_way(&served).await;
        let mut head = [0; 15];
        stream.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 200 OK");
        served.stop.cancel();
        drop(stream);
        assert!(served.served.await.unwrap());
    }
}
