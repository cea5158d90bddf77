//! `cartwright health`: whether the server on this machine is ready, as an exit code. It asks the operator listener, so
//! that an image needs no other program for its health check.

use std::process::ExitCode;
use std::time::Duration;

use super::operator::OperatorClient;
use crate::config::Config;

/// A ready node answers in a millisecond. Higher: a node that hangs is found later. Lower: a busy one is taken for dead.
const PATIENCE: Duration = Duration::from_secs(3);

pub(super) async fn run(config: Config) -> anyhow::Result<ExitCode> {
    let addr = reachable(&config.operator_listen);
    let asked = tokio::time::timeout(PATIENCE, async {
        match OperatorClient::connect(&addr).await {
            Some(mut server) => server.get("/health/ready").await.map(Some),
            None => Ok(None),
        }
    });
    let said = match asked.await {
        Ok(Ok(Some((status, _)))) if status.is_success() => {
            println!("ready");
            return Ok(ExitCode::SUCCESS);
        }
        Ok(Ok(Some((status, _)))) => format!("not ready ({})", status.as_u16()),
        Ok(Ok(None)) => format!("nobody listens at {addr}"),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer from {addr} within {} s", PATIENCE.as_secs()),
    };
    println!("{said}");
    Ok(ExitCode::FAILURE)
}

/// Where a listener on every address can be called.
fn reachable(listen: &str) -> String {
    match listen.rsplit_once(':') {
        Some(("0.0.0.0", port)) => format!("127.0.0.1:{port}"),
        Some(("[::]", port)) => format!("[::1]:{port}"),
        _ => listen.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_every_address_is_called_on_this_machine() {
        assert_eq!(reachable("0.0.0.0:9090"), "127.0.0.1:9090");
        assert_eq!(reachable("[::]:9090"), "[::1]:9090");
        assert_eq!(reachable("10.0.0.7:9090"), "10.0.0.7:9090");
    }
}
