//! `cartwright demo`: a service filled with a real shop's history, asked, told something, and asked again.
//!
//! - Everything it writes is in a folder of its own that goes away at the end, unless a data folder is named.
//! - What it shows is what it does: each printed command is the request just made, and its answer is shortened but
//!   not made up. `--exit` ends after that and fails where the answer did not change, so the demo is a test too.

mod answer;

use std::fs::DirBuilder;
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use flate2::read::GzDecoder;
use serde_json::Value;

use self::answer::{changed, difference, reasons, shortened, suggested};
use super::import;
use super::operator::{OperatorClient, expect_success};
use super::serve::Signals;
use crate::app::{App, Running};
use crate::config::{Config, Roles, Secret, StoreUrl};

/// See examples/online-retail/README.md.
const HISTORY: &[u8] = include_bytes!("../../../examples/online-retail/online-retail-excerpt.csv.gz");
const RULESET: &str = include_str!("../../../examples/ruleset.yaml");

/// A folder of the demo's own has keys of the demo's own, short enough to be typed. They open nothing else.
const PUBLIC_KEY: &str = "pk_demo_front_end";
const SERVER_KEY: &str = "sk_demo_back_end";

/// Regular customers of the history: one for the demo itself, one for the reader.
const CUSTOMER: &str = "17841";
const YOUR_CUSTOMER: &str = "12748";
/// A cake stand that sold well.
const SKU: &str = "22423";

/// An event shows in the next answer within milliseconds; more than this is a failure.
const VISIBLE_WITHIN: Duration = Duration::from_secs(10);
/// The model of what is bought together is built in the background, every few seconds.
const MODEL_WITHIN: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

/// Starts a service, fills it with a real shop's history, asks it, sends an event, and asks it again.
///
/// Needs nothing but this program. It prints the requests as commands that can be pasted, and goes on serving
/// until Ctrl-C; then what it wrote is removed. With --data-dir, it writes there, and leaves it there.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Stops after the first round, and fails if the answer did not change.
    #[arg(long)]
    exit: bool,
}

/// `keep` says that the configured data folder was named and is to be used.
pub(super) fn run(args: &Args, config: Config, keep: bool) -> anyhow::Result<ExitCode> {
    let folder = if keep {
        None
    } else {
        Some(OwnFolder::new().context("no folder for the demo could be made")?)
    };
    let config = configure(config, folder.as_ref())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the runtime could not be started")?;
    runtime.block_on(Box::pin(serve(config, args.exit)))
}

async fn serve(config: Config, exit: bool) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::new().context("signals could not be listened for")?;
    let running = Box::pin(App::start(config)).await?;
    let shown = tokio::select! {
        shown = Box::pin(show(&running, exit)) => shown,
        () = signals.next() => Ok(()),
    };
    if shown.is_ok() && !exit {
        signals.next().await;
    }
    Box::pin(running.stop()).await;
    shown.map(|()| ExitCode::SUCCESS)
}

fn key(secret: &Option<Secret>) -> anyhow::Result<String> {
    secret
        .as_ref()
        .map(|secret| secret.expose().to_owned())
        .context("the demo needs both API keys")
}

/// The embedded stack in the demo's folder, whatever stores the environment names, on free ports if the
/// configured ones are taken.
fn configure(mut config: Config, folder: Option<&OwnFolder>) -> anyhow::Result<Config> {
    if let Some(OwnFolder(folder)) = folder {
        config.data_dir.clone_from(folder);
    } else {
        std::fs::create_dir_all(&config.data_dir)
            .with_context(|| format!("{} could not be made", config.data_dir.display()))?;
    }
    let within = |name: &str| config.data_dir.join(name);
    config.queue.url = StoreUrl::new(&format!("disk:{}", within("queue").display()));
    config.warehouse.url = StoreUrl::new(&format!("sqlite:{}", within("warehouse.db").display()));
    config.hot.url = StoreUrl::new("memory:");
    config.roles = Roles {
        api: true,
        drain: true,
    };
    if config.ruleset.is_none() {
        let path = within("ruleset.yaml");
        std::fs::write(&path, RULESET).with_context(|| format!("{} could not be written", path.display()))?;
        config.ruleset = Some(path);
    }
    config.keys.public.get_or_insert_with(|| Secret::new(PUBLIC_KEY));
    config.keys.server.get_or_insert_with(|| Secret::new(SERVER_KEY));
    for listen in [&mut config.listen, &mut config.operator_listen] {
        if let Err(error) = TcpListener::bind(listen.as_str()) {
            eprintln!("{listen} cannot be used ({error}); taking a free port");
            *listen = "127.0.0.1:0".to_owned();
        }
    }
    Ok(config)
}

/// A new folder that only its owner may read, removed when this goes out of scope.
struct OwnFolder(PathBuf);

impl OwnFolder {
    fn new() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("cartwright-demo-{}", std::process::id()));
        // Fails where it exists already: what somebody else put there is not ours to use or to remove.
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(OwnFolder(path))
    }
}

impl Drop for OwnFolder {
    fn drop(&mut self) {
        // Nothing to be done about a folder that will not go, and it is in the system's temporary folder.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Imports the history, then asks, tells and asks again.
async fn show(running: &Running, exit: bool) -> anyhow::Result<()> {
    let (public_key, server_key) = (key(&running.keys.public)?, key(&running.keys.server)?);
    let started = Instant::now();
    println!(
        "Importing five weeks of a gift shop's invoices (UCI \"Online Retail\", D. Chen 2015, CC BY 4.0)."
    );
    let history = import::convert(GzDecoder::new(HISTORY))?;
    let mut operator = import::connect(&running.operator_addr.to_string()).await?;
    let receipts = import::send(&mut operator, &history.events).await?;
    print!("{}", import::table(&history.summary));
    println!(
        "All of it is in the warehouse after {:.1} s.\n",
        started.elapsed().as_secs_f64()
    );
    if !receipts.all_counted() {
        bail!("the service did not take the whole history: {receipts:?}");
    }

    let address = running
        .public_addr
        .context("the demo needs the role api")?
        .to_string();
    let mut shop = Shop {
        client: import::connect(&address).await?.bearing(&server_key),
        address,
        server_key,
    };
    shop.model_is_ready().await?;

    println!("What to show customer {CUSTOMER} at checkout?");
    let before = shop.ask(CUSTOMER, true).await?;
    println!("The customer puts a cake stand into the cart and chooses PayPal:");
    shop.tell(CUSTOMER).await?;
    println!("And now?");
    let (after, waited) = shop.ask_until_changed(CUSTOMER, &before).await?;
    let waited_ms = waited.as_secs_f64() * 1e3;
    println!("The answer changed {waited_ms:.1} ms after the events were acknowledged:\n");
    print!("{}", difference(&before, &after));
    println!("  Suggested now: {}.", suggested(&after, &history.events));

    println!("\nYour turn, with another customer, with a guest, and asking why:\n");
    for command in [
        shop.ask_command(YOUR_CUSTOMER, ""),
        shop.tell_command(YOUR_CUSTOMER),
        shop.ask_command(YOUR_CUSTOMER, ""),
        shop.ask_command(YOUR_CUSTOMER, "&explain=true"),
        format!(
            "curl -s 'http://{}/personalize?key={public_key}&anonymous_id=somebody&cart=85099B:2'",
            shop.address
        ),
        format!("curl -s http://{}/metrics", running.operator_addr),
    ] {
        println!("  {command}");
    }
    if !exit {
        println!("\nServing at http://{} until Ctrl-C.", shop.address);
    }
    Ok(())
}

/// The shop's back end, talking to the service.
struct Shop {
    client: OperatorClient,
    address: String,
    server_key: String,
}

impl Shop {
    fn ask_path(customer: &str, more: &str) -> String {
        format!("/personalize?user_id={customer}{more}")
    }

    fn ask_command(&self, customer: &str, more: &str) -> String {
        let path = Self::ask_path(customer, more);
        format!(
            "curl -s -H 'Authorization: Bearer {}' 'http://{}{path}'",
            self.server_key, self.address
        )
    }

    fn events(customer: &str) -> String {
        format!(
            concat!(
                r#"[{{"event":"Product Added","user_id":"{customer}","properties":{{"sku":"{sku}","quantity":1,"#,
                r#""price":12.75,"currency":"GBP"}}}},{{"event":"Payment Info Entered","user_id":"{customer}","#,
                r#""properties":{{"payment_method":"paypal"}}}}]"#
            ),
            customer = customer,
            sku = SKU,
        )
    }

    fn tell_command(&self, customer: &str) -> String {
        format!(
            "curl -s -H 'Authorization: Bearer {}' -H 'Content-Type: application/json' 'http://{}/events' -d '{}'",
            self.server_key,
            self.address,
            Self::events(customer)
        )
    }

    async fn get(&mut self, path: &str) -> anyhow::Result<Value> {
        let body = expect_success(self.client.get(path).await?)?;
        serde_json::from_slice(&body).context("the answer is not JSON")
    }

    /// Waits until something is recommended for a well-known cart.
    async fn model_is_ready(&mut self) -> anyhow::Result<()> {
        let started = Instant::now();
        let path = format!("/personalize?anonymous_id=demo-warm-up&cart={SKU}:1");
        while !reasons(&self.get(&path).await?).any(|reason| reason == "recommended") {
            if started.elapsed() > MODEL_WITHIN {
                bail!(
                    "nothing is recommended {} s after the import",
                    MODEL_WITHIN.as_secs()
                );
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    async fn ask(&mut self, customer: &str, print: bool) -> anyhow::Result<Value> {
        let answer = self.get(&Self::ask_path(customer, "")).await?;
        if print {
            println!("\n  $ {}\n{}", self.ask_command(customer, ""), shortened(&answer));
        }
        Ok(answer)
    }

    async fn tell(&mut self, customer: &str) -> anyhow::Result<()> {
        println!("\n  $ {}", self.tell_command(customer));
        let (status, body) = self
            .client
            .post("/events", "application/json", Self::events(customer))
            .await?;
        println!("  {} {}\n", status.as_u16(), String::from_utf8_lossy(&body));
        expect_success((status, body)).map(|_| ())
    }

    async fn ask_until_changed(
        &mut self,
        customer: &str,
        before: &Value,
    ) -> anyhow::Result<(Value, Duration)> {
        let started = Instant::now();
        loop {
            let after = self.ask(customer, false).await?;
            // Both events count before the answer is shown: the cart moves the recommendations, the method the
            // ranking.
            if changed(before, &after).count() > 1 {
                let waited = started.elapsed();
                println!("\n  $ {}\n{}", self.ask_command(customer, ""), shortened(&after));
                return Ok((after, waited));
            }
            if started.elapsed() > VISIBLE_WITHIN {
                bail!(
                    "the answer did not change within {} s: {after}",
                    VISIBLE_WITHIN.as_secs()
                );
            }
            tokio::time::sleep(POLL).await;
        }
    }
}
