//! Turns Nagle's algorithm off on connections to the server.
//!
//! sqlx 0.9.0 leaves it on (<https://github.com/transact-rs/sqlx/issues/4335>, mended after that release) and hands out no socket. With
//! it the end of a `copy` is held back until the server's kernel acknowledges the rows before it, for which Linux takes its time:
//! 40 ms, several times what the rest of a small batch takes. This file goes when a release of sqlx does the same.

use std::os::fd::BorrowedFd;

use socket2::SockRef;

/// Where the process lists its open descriptors; elsewhere than on Linux there may be no such folder, and nothing is done.
const DESCRIPTORS: &str = "/proc/self/fd";

/// Has every TCP connection of this process to a server's `port` send at once what it is given.
pub(super) fn disable(port: u16) {
    let listed = std::fs::read_dir(DESCRIPTORS).into_iter().flatten().flatten();
    for number in listed.filter_map(|entry| entry.file_name().to_str()?.parse().ok()) {
        // SAFETY: no memory is passed, and nothing is closed. Should another thread close the descriptor in the meantime, the calls fail;
        // should its number be taken again, they look at a socket to see whether it is one of these.
        let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
        let socket = SockRef::from(&descriptor);
        let peer = socket.peer_addr().ok().and_then(|peer| peer.as_socket());
        if peer.is_some_and(|peer| peer.port() == port) {
            // Without it all is slower, and nothing is wrong.
            let _ = socket.set_tcp_nodelay(true);
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn connections_to_the_port_send_at_once_and_others_are_left_alone() {
        let [server, other] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [to_server, to_other] =
            [&server, &other].map(|listener| TcpStream::connect(listener.local_addr().unwrap()).unwrap());
        disable(server.local_addr().unwrap().port());
        assert!(to_server.nodelay().unwrap());
        assert!(!to_other.nodelay().unwrap());
    }
}
