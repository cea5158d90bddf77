//! One connection: serving it, and the line between it and its listener.
//!
//! A connection's task is woken for every request, so nothing in here locks, arms a timer or allocates for one: the
//! listener's orders are one atomic load, and a head's time limit is the listener's rounds over [`Line::turns`].

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::task::Poll;

use axum::extract::Request;
use axum::http::{HeaderValue, header};
use futures_util::TryFutureExt as _;
use futures_util::task::AtomicWaker;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::Serve;

/// What a listener tells its connections; it only ever goes on to a later one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Order {
    #[default]
    Serve,
    /// Serve on, and let every answer tell the client to close.
    Linger,
    /// Finish what is under way.
    Close,
    /// End, whatever is under way.
    Cut,
}

/// Between a listener and one of its connections.
#[derive(Debug, Default)]
pub(super) struct Line {
    order: AtomicU8,
    /// Heads read and answers made, so odd while a request is under way. The connection alone writes it.
    turns: AtomicUsize,
    /// The connection's task, for an order that can't wait for the next request.
    task: AtomicWaker,
}

impl Line {
    pub(super) fn new(order: Order) -> Self {
        Line {
            order: AtomicU8::new(order as u8),
            ..Line::default()
        }
    }

    pub(super) fn tell(&self, order: Order) {
        self.order.fetch_max(order as u8, Ordering::AcqRel);
        self.task.wake();
    }

    fn is_told(&self, order: Order) -> bool {
        self.order.load(Ordering::Acquire) >= order as u8
    }

    pub(super) fn turns(&self) -> usize {
        self.turns.load(Ordering::Relaxed)
    }

    fn turn(&self) {
        self.turns.store(self.turns().wrapping_add(1), Ordering::Relaxed);
    }
}

/// Whether a request is under way after so many turns.
pub(super) fn is_under_way(turns: usize) -> bool {
    turns % 2 == 1
}

/// Serves a connection until it closes, or its listener says so.
pub(super) async fn serve(stream: TcpStream, service: impl Serve, line: &Line) {
    // A connection asks one thing after the other, so its own service serves it without being cloned for each.
    let service = RefCell::new(service);
    let service = service_fn(move |request: Request<Incoming>| {
        line.turn();
        let answer = service.borrow_mut().call(request);
        answer.map_ok(move |mut response| {
            line.turn();
            if line.is_told(Order::Linger) {
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(header::CONNECTION, close);
            }
            response
        })
    });
    let mut serving = pin!(
        http1::Builder::new()
            // It would make, arm and drop a timer for every request; see the listener's rounds.
            .header_read_timeout(None)
            // An answer is small: copied behind its head it leaves in one plain write.
            .writev(false)
            .serve_connection(TokioIo::new(stream), service)
    );
    let mut closing = false;
    let ended = poll_fn(|cx| {
        // First this, then the order: one given in between wakes the task again.
        line.task.register(cx.waker());
        if line.is_told(Order::Cut) {
            return Poll::Ready(Ok(()));
        }
        if !closing && line.is_told(Order::Close) {
            closing = true;
            serving.as_mut().graceful_shutdown();
        }
        serving.as_mut().poll(cx)
    });
    if let Err(error) = ended.await {
        // A client that went away: of interest only to who looks for it.
        tracing::debug!(error = %error, "a connection ended early");
    }
}
