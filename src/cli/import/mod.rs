//! `cartwright import`: a shop's history, through the same log and lane as live traffic.
//!
//! - The file is read to its end first: one bad row, and nothing is sent.
//! - Where a server holds the data folder's log, events go to its operator listener; where none does, the stack
//!   is started here for as long as it takes, on free ports, and stopped with everything in the warehouse.
//! - It may be interrupted and repeated at any point: events carry ids made from the file's own keys.

mod delivery;
mod report;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context as _;

pub(super) use self::delivery::{Receipts, send};
use self::report::sentence;
pub(super) use self::report::table;
use super::input;
use super::operator::OperatorClient;
use super::progress::Progress;
use crate::app::{self, App};
use crate::config::{Config, Roles};
use crate::import::OutgoingEvent;
use crate::import::online_retail::{self, Conversion};

/// Imports a shop's history through the log, as if it had been sent live.
///
/// Works beside a running server (through its operator listener) and without one. Repeatable: importing a file
/// twice, or its rows in another order, changes nothing. A file with a bad row is refused whole, with the
/// row's number.
///
/// Example: cartwright import invoices.csv.gz --format online-retail
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Args {
    /// The file, plain or gzipped.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// What kind of file it is.
    #[arg(long, value_enum)]
    format: Format,
    /// Reads the file, prints what it holds, and sends nothing.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// UCI "Online Retail": one CSV row per invoice line, with the columns InvoiceNo, StockCode, Description,
    /// Quantity, InvoiceDate, UnitPrice, CustomerID, Country.
    OnlineRetail,
}

pub(super) fn run(args: &Args, config: Config) -> anyhow::Result<ExitCode> {
    let Format::OnlineRetail = args.format;
    let Conversion { events, summary } = read(&args.file)?;
    if args.dry_run {
        print!("{}", table(&summary));
        return Ok(ExitCode::SUCCESS);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the runtime could not be started")?;
    let started = Instant::now();
    let receipts = runtime.block_on(Box::pin(deliver(config, &events)))?;
    print!("{}", table(&summary));
    println!("{}", sentence(&receipts, started.elapsed()));
    Ok(if receipts.all_counted() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Sends through the server that holds the data folder, or through a stack of our own.
async fn deliver(config: Config, events: &[OutgoingEvent]) -> anyhow::Result<Receipts> {
    let operator_listen = config.operator_listen.clone();
    // Not the configured ports: whoever listens there may be another shop's server.
    let own = Config {
        operator_listen: "127.0.0.1:0".to_owned(),
        roles: Roles {
            api: false,
            drain: true,
        },
        ..config
    };
    // Only the log's lock tells for certain whether a server runs on this folder.
    let running = match Box::pin(App::start(own)).await {
        Ok(running) => running,
        Err(error) if app::is_in_use(&error) => {
            let mut server = OperatorClient::connect(&operator_listen).await.with_context(|| {
                format!("{error:#}. Its operator listener is not at {operator_listen}; name it with --operator-listen")
            })?;
            return send(&mut server, events).await;
        }
        Err(error) => return Err(error),
    };
    let mut server = connect(&running.operator_addr.to_string()).await?;
    let receipts = send(&mut server, events).await;
    drop(server);
    Box::pin(running.stop()).await;
    receipts
}

pub(super) async fn connect(addr: &str) -> anyhow::Result<OperatorClient> {
    OperatorClient::connect(addr)
        .await
        .with_context(|| format!("nobody listens at {addr}"))
}

/// Reads and converts a file, plain or gzipped.
pub(super) fn read(path: &Path) -> anyhow::Result<Conversion> {
    let input = input::open(path)?;
    convert(input).with_context(|| format!("{} cannot be imported", path.display()))
}

/// The same for a file already in hand.
pub(super) fn convert(input: impl Read) -> anyhow::Result<Conversion> {
    let mut progress = Progress::new("reading", "rows", None);
    let conversion = online_retail::convert(input, |rows| progress.set(rows))?;
    progress.finish();
    Ok(conversion)
}
