//! `cartwright serve`: run until SIGTERM or SIGINT, then stop in order; a second signal ends the process at once.
//! A node that finds out it must not go on stops in order as well, and exits with that error.

use std::io;
use std::num::NonZero;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::app::App;
use crate::config::Config;

/// Signals this close together are one: `timeout`, and whoever signals a whole process group, sends it twice. Higher: an
/// impatient operator waits for it. Lower: an order to stop passes for an order to drop everything.
const SAME_SIGNAL: Duration = Duration::from_millis(300);

/// The exit code after a second signal: 128 and SIGINT's number, as shells expect.
const INTERRUPTED: i32 = 130;

pub(super) fn run(config: Config) -> anyhow::Result<ExitCode> {
    let runtime = runtime().context("the runtime could not be started")?;
    runtime.block_on(serve(config))
}

/// On one core nothing is gained by moving tasks between threads, and each wake-up pays for it.
fn runtime() -> io::Result<Runtime> {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let mut builder = match cores {
        1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    builder.enable_all().build()
}

async fn serve(config: Config) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::new().context("signals could not be listened for")?;
    let mut running = tokio::select! {
        started = Box::pin(App::start(config)) => started?,
        // Nothing was promised to anybody yet.
        () = signals.next() => return Ok(ExitCode::SUCCESS),
    };
    let failed = tokio::select! {
        () = signals.next() => {
            tracing::info!("stopping; a second signal ends the process at once");
            None
        }
        error = running.failed() => {
            tracing::error!(error = %error, "this node cannot go on, and stops");
            Some(error)
        }
    };
    tokio::select! {
        () = Box::pin(running.stop()) => failed.map_or(Ok(ExitCode::SUCCESS), Err),
        () = signals.again() => {
            tracing::warn!("stopped at once, without waiting for what was under way");
            std::process::exit(INTERRUPTED)
        }
    }
}

/// The signals that stop a process in order.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// The next one that is not an echo of the last.
    async fn again(&mut self) {
        tokio::time::sleep(SAME_SIGNAL).await;
        tokio::select! {
            biased;
            () = self.next() => {}
            () = std::future::ready(()) => {}
        }
        self.next().await;
    }

    /// The next one.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
