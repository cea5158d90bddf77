//! Listeners: accept connections, serve a router on them, and stop without cutting an answer short.
//!
//! - Bounded: at most [`Limits::connections`] are open; more wait in the kernel's backlog. A head must be
//!   complete within [`HEAD_TIMEOUT`], so that connections which drip bytes, or idle, give their place back.
//! - Stopping has three steps. *Linger*: everything is still accepted and served, and every answer tells its
//!   connection to close, so that a busy keep-alive client changes over to another node between two requests
//!   instead of writing into a closed socket. *Close*: no new connections, idle ones are closed, requests under
//!   way are finished. *Cut*: what is unfinished at the end of the grace period is dropped.
//!
//! It knows nothing of what it serves; admission and time limits of a request are the router's layers.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Higher lets slow or idle connections hold their places longer; lower closes keep-alive connections that a
/// checkout page would have used again.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Higher makes every stop slower; lower closes connections on which a request is already on its way.
const LINGER: Duration = Duration::from_millis(200);
/// How long to wait when the process is out of file descriptors: long enough for one to be given back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

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

    /// Serves `router` until `stop` is cancelled, then stops in order. Returns whether every request was
    /// finished within the grace period.
    pub async fn serve(self, router: Router, limits: Limits, stop: CancellationToken) -> bool {
        let closing = CancellationToken::new();
        let cut = CancellationToken::new();
        let lingering = stop.clone();
        let router = router.layer(from_fn(move |request, next| {
            answer(lingering.clone(), request, next)
        }));
        let places = Arc::new(Semaphore::new(limits.connections));
        let tasks = TaskTracker::new();
        let mut linger_until = None;
        loop {
            let accepted = tokio::select! {
                accepted = accept(&self.socket, &places) => accepted,
                () = stop.cancelled(), if linger_until.is_none() => {
                    if tasks.is_empty() {
                        break;
                    }
                    linger_until = Some(Instant::now() + LINGER.min(limits.grace / 2));
                    continue;
                }
                () = until(linger_until) => break,
            };
            let Ok((stream, place)) = accepted else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let connection = connection(stream, router.clone(), closing.clone());
            let cut = cut.clone();
            tasks.spawn(async move {
                tokio::select! {
                    () = connection => {}
                    () = cut.cancelled() => {}
                }
                drop(place);
            });
        }
        drop(self.socket);
        closing.cancel();
        tasks.close();
        let lingered = linger_until.map_or(Duration::ZERO, |_| LINGER.min(limits.grace / 2));
        let finished = timeout_at(
            Instant::now() + limits.grace.saturating_sub(lingered),
            tasks.wait(),
        )
        .await
        .is_ok();
        cut.cancel();
        tasks.wait().await;
        finished
    }
}

/// The next connection, once there is a place for it.
async fn accept(
    socket: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places)
        .acquire_owned()
        .await
        .map_err(io::Error::other)?;
    let (stream, _) = socket.accept().await?;
    // Answers are written whole; waiting for more to send would only add the client's delayed acknowledgement.
    stream.set_nodelay(true)?;
    Ok((stream, place))
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

/// Serves one connection until it closes; from `closing` on, only what is under way.
async fn connection(stream: TcpStream, router: Router, closing: CancellationToken) {
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut serving = std::pin::pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = closing.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        // A client that went away, or a head that never came: of interest only to who looks for it.
        tracing::debug!(error = %error, "a connection ended early");
    }
}

/// Answers a request, telling the connection to close once the process is stopping.
async fn answer(lingering: CancellationToken, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    if lingering.is_cancelled() {
        response
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

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
}
