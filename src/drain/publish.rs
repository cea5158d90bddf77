//! Documents on their way into the hot store.

use std::collections::BTreeSet;

use tokio_util::sync::CancellationToken;

use super::fast::{FastLane, pause};
use super::retry::Backoff;
use crate::domain::ids::SubjectId;
use crate::domain::profile::Document;
use crate::domain::transform::{Effect, IdentityClaim};
use crate::hot::HotProfile;
use crate::warehouse::{Applied, WarehouseError};

type Published = (SubjectId, HotProfile);

impl FastLane {
    /// Publishes what a batch wrote. Returns false when told to stop before the hot store took it.
    pub(super) async fn publish(&self, applied: Applied, stop: &CancellationToken) -> bool {
        let documents = applied.documents.into_iter();
        let profiles = documents.map(|(subject, version, bytes)| (subject, HotProfile { version, bytes }));
        self.put(&profiles.collect::<Vec<_>>(), stop).await
    }

    /// Publishes the documents, as stored now, of everybody whom `effects` name: after a commit of which nobody knows
    /// whether it happened. If it did, its batch is never applied again, and the hot store would keep what was there
    /// before. A user who is one person with another through an alias alone is left to their next event.
    pub(super) async fn publish_again(&self, effects: &[(u64, Effect)], stop: &CancellationToken) {
        let mut backoff = Backoff::new();
        let profiles = loop {
            match self.stored(effects).await {
                Ok(profiles) => break profiles,
                Err(error) => tracing::warn!(error = %error, "the fast lane waits for the warehouse"),
            }
            if pause(backoff.wait(), stop).await {
                return;
            }
        };
        self.put(&profiles, stop).await;
    }

    async fn stored(&self, effects: &[(u64, Effect)]) -> Result<Vec<Published>, WarehouseError> {
        let mut open: Vec<SubjectId> = effects.iter().flat_map(|(_, effect)| named(effect)).collect();
        let mut seen = BTreeSet::new();
        let mut profiles = Vec::new();
        while let Some(subject) = open.pop() {
            if !seen.insert(subject.clone()) {
                continue;
            }
            let Some((version, bytes)) = self.warehouse.document(&subject).await? else {
                continue;
            };
            // What this build cannot read it has not written.
            open.extend(
                Document::decode(&bytes)
                    .ok()
                    .and_then(|document| document.linked_user),
            );
            profiles.push((subject, HotProfile { version, bytes }));
        }
        Ok(profiles)
    }

    /// Tries until the hot store takes them, since a stale one must not stay.
    async fn put(&self, profiles: &[Published], stop: &CancellationToken) -> bool {
        if profiles.is_empty() {
            return true;
        }
        let mut backoff = Backoff::new();
        while let Err(error) = self.hot.put_newer(profiles).await {
            tracing::warn!(error = %error, "the fast lane waits for the hot store");
            if pause(backoff.wait(), stop).await {
                return false;
            }
        }
        true
    }
}

fn named(effect: &Effect) -> Vec<SubjectId> {
    let event = &effect.event;
    let mut named: Vec<SubjectId> = [&event.anonymous, &event.user, &effect.subject]
        .into_iter()
        .flatten()
        .cloned()
        .collect();
    match &effect.identity {
        Some(IdentityClaim::Link { anonymous, user, .. } | IdentityClaim::Unlink { anonymous, user }) => {
            named.extend([anonymous.clone(), user.clone()]);
        }
        Some(IdentityClaim::Alias { user, previous }) => named.extend([user.clone(), previous.clone()]),
        None => {}
    }
    named
}
