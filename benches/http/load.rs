//! A one-thread HTTP/1.1 load generator over keep-alive connections.
//!
//! Open loop: arrivals follow a Poisson process at a fixed rate, and latency counts from the *scheduled* arrival,
//! so a server that stalls is charged for every request it kept waiting (no coordinated omission). Closed loop:
//! each connection sends its next request when the last answer came. The thread spins instead of sleeping: a
//! wake-up of a virtual machine costs tens of microseconds, which would be measured as the server's. Give it a
//! core of its own. A load in the background, whose latency nobody reads, sleeps and leaves its core to the servers.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// How requests are timed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pace {
    /// As fast as the connections allow.
    Closed,
    /// Requests per second.
    Open(f64),
    /// Requests per second, sent every millisecond: a load under which something else is measured.
    Background(f64),
}

/// Between two looks at the connections of a load in the background.
const TICK: Duration = Duration::from_millis(1);

/// What to send.
pub(crate) struct Plan<'a> {
    pub addr: SocketAddr,
    pub connections: usize,
    pub pace: Pace,
    pub warm_up: Duration,
    pub duration: Duration,
    /// The bytes of the n-th request.
    pub request: &'a mut dyn FnMut(u64) -> Vec<u8>,
    /// The process whose CPU time is charged to the requests.
    pub pid: u32,
    pub expect: u16,
}

/// What came back.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    /// Answers with a status other than the expected one.
    pub unexpected: u64,
    pub per_second: f64,
    /// Microseconds, ascending.
    latencies_us: Vec<f64>,
    /// CPU time of all threads of the server, per request.
    pub cpu_us: f64,
}

impl Report {
    /// A quantile of the latency in microseconds.
    pub(crate) fn quantile(&self, q: f64) -> f64 {
        let last = self.latencies_us.len().saturating_sub(1);
        self.latencies_us
            .get((last as f64 * q).round() as usize)
            .copied()
            .unwrap_or(f64::NAN)
    }
}

struct Connection {
    stream: TcpStream,
    scheduled: Instant,
    busy: bool,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    sent: usize,
}

impl Connection {
    fn open(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).expect("the server accepts connections");
        stream.set_nodelay(true).expect("nodelay");
        stream.set_nonblocking(true).expect("nonblocking");
        let (inbox, outbox) = (Vec::with_capacity(1 << 14), Vec::new());
        Connection {
            stream,
            scheduled: Instant::now(),
            busy: false,
            inbox,
            outbox,
            sent: 0,
        }
    }

    fn send(&mut self, request: Vec<u8>, scheduled: Instant) {
        (self.outbox, self.sent, self.scheduled, self.busy) = (request, 0, scheduled, true);
        self.flush();
    }

    fn flush(&mut self) {
        while self.sent < self.outbox.len() {
            match self.stream.write(&self.outbox[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("the server cut the connection: {error}"),
            }
        }
    }

    /// The status of the answer, once it is whole.
    fn poll(&mut self, scratch: &mut [u8]) -> Option<u16> {
        self.flush();
        match self.stream.read(scratch) {
            Ok(0) => panic!("the server closed the connection"),
            Ok(count) => self.inbox.extend_from_slice(&scratch[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
            Err(error) => panic!("the server cut the connection: {error}"),
        }
        let status = complete(&self.inbox)?;
        self.inbox.clear();
        self.busy = false;
        Some(status)
    }
}

/// The status of a whole answer with a `content-length`.
pub(crate) fn complete(answer: &[u8]) -> Option<u16> {
    let head_len = answer.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&answer[..head_len]).ok()?;
    let status = head.get(9..12)?.parse().ok()?;
    let length = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .map_or(0, |(_, value)| value.trim().parse().expect("a content length"));
    (answer.len() >= head_len + length).then_some(status)
}

/// Runs the plan and reports the part after the warm-up.
pub(crate) fn run(plan: Plan<'_>) -> Report {
    let mut connections: Vec<_> = (0..plan.connections)
        .map(|_| Connection::open(plan.addr))
        .collect();
    let mut idle: Vec<usize> = (0..plan.connections).collect();
    let mut waiting: VecDeque<Instant> = VecDeque::new();
    let mut scratch = vec![0; 1 << 16];
    let mut random = 0x9E37_79B9_7F4A_7C15_u64;
    let mut latencies_us = Vec::with_capacity(1 << 20);
    let (mut sent, mut unexpected) = (0, 0);

    let started = Instant::now();
    let measured_from = started + plan.warm_up;
    let ends = measured_from + plan.duration;
    let mut next_arrival = started;
    let mut cpu_before = None;
    loop {
        let now = Instant::now();
        if now >= ends {
            break;
        }
        if now >= measured_from && cpu_before.is_none() {
            cpu_before = Some(cpu_time(plan.pid));
        }
        match plan.pace {
            Pace::Closed => waiting.extend(idle.iter().map(|_| now)),
            Pace::Open(rate) | Pace::Background(rate) => {
                while next_arrival <= now {
                    waiting.push_back(next_arrival);
                    next_arrival += exponential(&mut random, rate);
                }
            }
        }
        while let (Some(&scheduled), Some(&at)) = (waiting.front(), idle.last()) {
            idle.pop();
            waiting.pop_front();
            connections[at].send((plan.request)(sent), scheduled);
            sent += 1;
        }
        for (at, connection) in connections
            .iter_mut()
            .enumerate()
            .filter(|(_, connection)| connection.busy)
        {
            let Some(status) = connection.poll(&mut scratch) else {
                continue;
            };
            idle.push(at);
            if connection.scheduled >= measured_from {
                latencies_us.push(connection.scheduled.elapsed().as_secs_f64() * 1e6);
                unexpected += u64::from(status != plan.expect);
            }
        }
        if let Pace::Background(_) = plan.pace {
            std::thread::park_timeout(TICK);
        }
    }
    let cpu = cpu_time(plan.pid).saturating_sub(cpu_before.unwrap_or_default());
    // Requests still waiting are charged up to now; leaving them out would flatter a server that fell behind.
    let overdue = connections
        .iter()
        .filter(|connection| connection.busy)
        .map(|connection| connection.scheduled);
    if let Pace::Open(_) | Pace::Background(_) = plan.pace {
        latencies_us.extend(
            overdue
                .chain(waiting)
                .filter(|at| *at >= measured_from)
                .map(|at| at.elapsed().as_secs_f64() * 1e6),
        );
    }
    latencies_us.sort_unstable_by(f64::total_cmp);
    let requests = latencies_us.len() as u64;
    Report {
        unexpected,
        per_second: requests as f64 / plan.duration.as_secs_f64(),
        cpu_us: cpu.as_secs_f64() * 1e6 / requests.max(1) as f64,
        latencies_us,
    }
}

/// The time to the next arrival of a Poisson process.
fn exponential(random: &mut u64, rate: f64) -> Duration {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    let uniform = ((*random >> 11) as f64 + 1.0) / ((1_u64 << 53) as f64 + 1.0);
    Duration::from_secs_f64(-uniform.ln() / rate)
}

/// The CPU time that all threads of a process have used, from the scheduler's own nanosecond counters.
pub(crate) fn cpu_time(pid: u32) -> Duration {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten();
    let nanos = tasks
        .filter_map(|task| std::fs::read_to_string(task.path().join("schedstat")).ok())
        .filter_map(|text| text.split_whitespace().next()?.parse::<u64>().ok())
        .sum();
    Duration::from_nanos(nanos)
}
