//! Which ruleset is in force after a start: the configured file, else the one last applied, else a built-in one.

use std::path::Path;

use anyhow::{Context as _, bail};

use crate::clock;
use crate::config::Config;
use crate::domain::ruleset::Ruleset;
use crate::rulesets::{RefreshError, Rulesets};
use crate::warehouse::Warehouse;

/// Where a node keeps the last good ruleset, in the data folder.
pub(super) const KEPT: &str = "ruleset.kept";

/// Makes a bare `cartwright serve` answer.
pub(super) const BUILT_IN: &str = include_str!("built_in.yaml");

/// Reads and checks a ruleset file.
///
/// # Errors
/// When it cannot be read, or with every problem in it, one a line as `FILE:LINE:COLUMN: PATH: REASON`.
pub fn read(path: &Path) -> anyhow::Result<String> {
    let source =
        std::fs::read_to_string(path).with_context(|| format!("{} could not be read", path.display()))?;
    if let Err(errors) = Ruleset::parse(&source, 0) {
        let name = path.display().to_string();
        let lines: Vec<String> = errors.lines(&name).collect();
        bail!(
            "the ruleset has problems, and nothing was changed:\n  {}",
            lines.join("\n  ")
        );
    }
    Ok(source)
}

/// The configured file's text, checked.
pub(super) fn configured(config: &Config) -> anyhow::Result<Option<String>> {
    config.ruleset.as_deref().map(read).transpose()
}

/// Puts the newest ruleset in force, after `configured` or, where none was ever applied, the built-in one was stored.
///
/// # Errors
/// When the warehouse does not answer, or holds a ruleset that this build cannot read while none is in force.
pub(super) async fn load(
    configured: Option<&str>,
    warehouse: &dyn Warehouse,
    rulesets: &Rulesets,
) -> Result<(), RefreshError> {
    if let Some(source) = configured {
        warehouse.store_ruleset(source, clock::now()).await?;
    } else if warehouse.newest_ruleset(None).await?.is_none() {
        warehouse.store_ruleset(BUILT_IN, clock::now()).await?;
        tracing::info!("no ruleset was ever applied: the built-in one is in force; see `cartwright apply`");
    }
    match rulesets.refresh().await {
        Err(error @ RefreshError::Parse { .. }) if rulesets.is_loaded() => {
            tracing::warn!(error = %error, "the ruleset last kept on this node is in force");
            Ok(())
        }
        refreshed => refreshed.map(drop),
    }
}

/// Without the warehouse: the configured file, else the one last kept on this node, else the built-in one.
///
/// # Errors
/// When it does not parse.
pub(super) fn fall_back(configured: Option<&str>, rulesets: &Rulesets) -> anyhow::Result<()> {
    match configured {
        Some(source) => rulesets.fall_back_on(source)?,
        None if rulesets.is_loaded() => {}
        None => rulesets.fall_back_on(BUILT_IN)?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_ruleset_fills_content_and_rankings() {
        let ruleset = Ruleset::parse(BUILT_IN, 1).unwrap();
        let kinds: Vec<_> = ruleset
            .placements()
            .iter()
            .map(|placement| placement.kind.as_str())
            .collect();
        assert_eq!(kinds, ["content", "ranking", "ranking"]);
    }

    #[test]
    fn a_ruleset_with_problems_is_refused_by_file_and_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.yaml");
        std::fs::write(&path, "placements:\n  promo:\n    kind: banner\n").unwrap();
        let error = format!("{:#}", read(&path).unwrap_err());
        assert!(error.contains("r.yaml:3:"), "{error}");
        let absent = format!("{:#}", read(&folder.path().join("absent.yaml")).unwrap_err());
        assert!(absent.contains("absent.yaml could not be read"), "{absent}");
    }
}
