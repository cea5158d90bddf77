//! A TCP proxy in front of a server, which can do to its clients what networks and dying servers do.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::redis::free_port;

/// What becomes of connections. A change holds for those that are open as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    Fair,
    /// Every piece of a reply comes late.
    Slow(Duration),
    /// Nobody listens, and what was open is reset.
    Refuses,
    /// Connections are taken, and reset at once.
    Resets,
    /// Replies end after this many bytes, with a reset.
    Cuts(usize),
    /// Connections are taken, and nothing comes back until the weather changes.
    Swallows,
}

/// A listener on a port of its own that passes on to `upstream`.
#[derive(Debug)]
pub struct Proxy {
    addr: SocketAddr,
    weather: watch::Sender<Weather>,
    listener: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

impl Proxy {
    pub async fn start(upstream: SocketAddr) -> Proxy {
        // Not one of the ports that the system gives to outgoing connections: after a refusal it must still be free.
        let listener = TcpListener::bind(("127.0.0.1", free_port())).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (weather, seen) = watch::channel(Weather::Fair);
        Proxy {
            addr,
            weather,
            listener: tokio::spawn(listen(Some(listener), addr, upstream, seen)),
        }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }
}

async fn listen(
    mut listener: Option<TcpListener>,
    addr: SocketAddr,
    upstream: SocketAddr,
    mut weather: watch::Receiver<Weather>,
) {
    loop {
        if *weather.borrow_and_update() == Weather::Refuses {
            listener = None;
        } else if listener.is_none() {
            listener = TcpListener::bind(addr).await.ok();
            if listener.is_none() {
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            }
        }
        tokio::select! {
            changed = weather.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            accepted = accept(listener.as_ref()) => {
                if let Ok((client, _)) = accepted {
                    tokio::spawn(pass(client, upstream, weather.clone()));
                }
            }
        }
    }
}

async fn accept(listener: Option<&TcpListener>) -> io::Result<(TcpStream, SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

/// One connection, until either side ends it or the weather does.
async fn pass(client: TcpStream, upstream: SocketAddr, weather: watch::Receiver<Weather>) {
    let ends = |weather: &Weather| matches!(weather, Weather::Refuses | Weather::Resets);
    let mut storm = weather.clone();
    if ends(&weather.borrow()) {
        return reset(&client);
    }
    let Ok(server) = TcpStream::connect(upstream).await else {
        return reset(&client);
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let ended = tokio::select! {
        _ = storm.wait_for(ends) => true,
        () = ask(&mut from_client, &mut to_server, weather.clone()) => false,
        cut = answer(&mut from_server, &mut to_client, weather) => cut,
    };
    if ended && let Ok(client) = from_client.reunite(to_client) {
        reset(&client);
    }
}

/// Closes with a reset instead of an end.
fn reset(client: &TcpStream) {
    // Dropped by the caller, which is when the reset is sent.
    let _ = client.set_zero_linger();
}

async fn ask(from: &mut OwnedReadHalf, to: &mut OwnedWriteHalf, mut weather: watch::Receiver<Weather>) {
    let mut piece = vec![0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut piece).await {
        let _ = weather.wait_for(|now| *now != Weather::Swallows).await;
        if to.write_all(&piece[..count]).await.is_err() {
            return;
        }
    }
}

/// True when the connection was cut.
async fn answer(
    from: &mut OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    mut weather: watch::Receiver<Weather>,
) -> bool {
    let mut piece = vec![0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut piece).await {
        let _ = weather.wait_for(|now| *now != Weather::Swallows).await;
        let now = *weather.borrow();
        let mut bytes = &piece[..count];
        match now {
            Weather::Slow(late) => tokio::time::sleep(late).await,
            Weather::Cuts(after) => bytes = &bytes[..after.min(count)],
            _ => {}
        }
        if to.write_all(bytes).await.is_err() {
            return false;
        }
        if matches!(now, Weather::Cuts(_)) {
            return true;
        }
    }
    false
}
