//! `cartwright openapi`: the public API's contract, as YAML.

use std::process::ExitCode;

use crate::app;

pub(super) fn run() -> anyhow::Result<ExitCode> {
    print!("{}", app::openapi_yaml()?);
    Ok(ExitCode::SUCCESS)
}
