//! A warehouse that does not always do as asked, by a script.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cartwright::domain::experiment::Outcomes;
use cartwright::domain::ids::{Shop, SubjectId, Timestamp};
use cartwright::domain::product::CatalogueItem;
use cartwright::domain::profile::Version;
use cartwright::domain::recommend::Purchases;
use cartwright::domain::recommend::sessions::Interaction;
use cartwright::warehouse::{
    Applied, Batch, Changes, OutcomeQuery, Progress, StoredDecision, StoredRuleset, Warehouse, WarehouseError,
};
use tokio::sync::Notify;

use super::gates::Gate;

/// What becomes of one `apply`.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Nothing happens, with this error.
    Reject(WarehouseError),
    /// The batch is committed, and the answer lost.
    FailAfterWrite,
    /// The batch is applied once it is let go.
    Hold(Arc<Notify>),
    Slow(Duration),
}

/// Passes everything on to a real warehouse. Each `apply` meets the next fault of the script, and none once that is
/// at its end.
#[derive(Debug)]
pub struct FaultyWarehouse {
    inner: Arc<dyn Warehouse>,
    script: Mutex<VecDeque<Fault>>,
    /// Event ids that no transaction can store, unless they go to quarantine.
    poison: BTreeSet<String>,
    /// Event ids at which applying panics.
    explosive: BTreeSet<String>,
    /// Told when an `apply` begins.
    pub began: Notify,
    /// What `documents` found is held here.
    documents: Gate,
    /// How many profiles each call of `documents` asked for.
    rounds: Mutex<Vec<usize>>,
    /// How many batches each transaction was to take.
    batches: Mutex<Vec<usize>>,
}

impl FaultyWarehouse {
    pub fn new(inner: Arc<dyn Warehouse>, script: impl IntoIterator<Item = Fault>) -> Self {
        FaultyWarehouse {
            inner,
            script: Mutex::new(script.into_iter().collect()),
            poison: BTreeSet::new(),
            explosive: BTreeSet::new(),
            began: Notify::new(),
            documents: Gate::default(),
            rounds: Mutex::default(),
            batches: Mutex::default(),
        }
    }

    pub fn rounds(&self) -> Vec<usize> {
        self.rounds.lock().unwrap().clone()
    }

    pub fn batches(&self) -> Vec<usize> {
        self.batches.lock().unwrap().clone()
    }

    pub fn holding_documents(mut self, at: &Gate) -> Self {
        self.documents = at.clone();
        self
    }

    pub fn poisoned_by(mut self, event_ids: &[&str]) -> Self {
        self.poison = event_ids.iter().map(|id| (*id).to_owned()).collect();
        self
    }

    pub fn panicking_at(mut self, event_id: &str) -> Self {
        self.explosive.insert(event_id.to_owned());
        self
    }

    /// Faults of the script that nothing met yet.
    pub fn faults_left(&self) -> usize {
        self.script.lock().unwrap().len()
    }
}

#[async_trait]
impl Warehouse for FaultyWarehouse {
    async fn progress(&self) -> Result<Vec<Progress>, WarehouseError> {
        self.inner.progress().await
    }

    async fn apply_together(&self, batches: &[Batch<'_>]) -> Result<Vec<Applied>, WarehouseError> {
        self.began.notify_one();
        self.batches.lock().unwrap().push(batches.len());
        let explodes = batches
            .iter()
            .flat_map(|batch| batch.effects)
            .any(|(_, effect)| self.explosive.contains(&*effect.event.event_id));
        assert!(!explodes, "as this test wants it");
        let poisonous = batches
            .iter()
            .flat_map(|batch| batch.effects)
            .any(|(_, effect)| effect.quarantine.is_none() && self.poison.contains(&*effect.event.event_id));
        if poisonous {
            return Err(WarehouseError::Rejected("poison".into()));
        }
        let fault = self.script.lock().unwrap().pop_front();
        match fault {
            None => {}
            Some(Fault::Reject(error)) => return Err(error),
            Some(Fault::FailAfterWrite) => {
                self.inner.apply_together(batches).await?;
                return Err(WarehouseError::Unknown("the answer was lost".into()));
            }
            Some(Fault::Hold(until)) => until.notified().await,
            Some(Fault::Slow(time)) => tokio::time::sleep(time).await,
        }
        self.inner.apply_together(batches).await
    }

    async fn documents(
        &self,
        subjects: &[SubjectId],
    ) -> Result<Vec<(SubjectId, Version, Bytes)>, WarehouseError> {
        self.rounds.lock().unwrap().push(subjects.len());
        let found = self.inner.documents(subjects).await;
        self.documents.pass().await;
        found
    }

    async fn epoch(&self) -> Result<Option<u64>, WarehouseError> {
        self.inner.epoch().await
    }

    async fn changes(&self, partition: u16, after: u64, limit: u32) -> Result<Changes, WarehouseError> {
        self.inner.changes(partition, after, limit).await
    }

    async fn newest_ruleset(&self, known: Option<u64>) -> Result<Option<StoredRuleset>, WarehouseError> {
        self.inner.newest_ruleset(known).await
    }

    async fn store_ruleset(&self, source: &str, now: Timestamp) -> Result<StoredRuleset, WarehouseError> {
        self.inner.store_ruleset(source, now).await
    }

    async fn ruleset(&self, version: u64) -> Result<Option<StoredRuleset>, WarehouseError> {
        self.inner.ruleset(version).await
    }

    async fn rulesets(&self, limit: u32) -> Result<Vec<StoredRuleset>, WarehouseError> {
        self.inner.rulesets(limit).await
    }

    async fn paused(&self) -> Result<Vec<String>, WarehouseError> {
        self.inner.paused().await
    }

    async fn set_paused(&self, experience: &str, paused: bool, now: Timestamp) -> Result<(), WarehouseError> {
        self.inner.set_paused(experience, paused, now).await
    }

    async fn decided_since(
        &self,
        shop: &Shop,
        since: Timestamp,
        limit: u32,
    ) -> Result<Vec<(Timestamp, String)>, WarehouseError> {
        self.inner.decided_since(shop, since, limit).await
    }

    async fn decision(
        &self,
        shop: &Shop,
        decision_id: &str,
    ) -> Result<Option<StoredDecision>, WarehouseError> {
        self.inner.decision(shop, decision_id).await
    }

    async fn purchases(&self, shop: &Shop, max_lines: usize) -> Result<Purchases, WarehouseError> {
        self.inner.purchases(shop, max_lines).await
    }

    async fn interactions(&self, shop: &Shop, max_events: usize) -> Result<Vec<Interaction>, WarehouseError> {
        self.inner.interactions(shop, max_events).await
    }

    async fn catalogue(&self, shop: &Shop, max_items: usize) -> Result<Vec<CatalogueItem>, WarehouseError> {
        self.inner.catalogue(shop, max_items).await
    }

    async fn outcomes(&self, query: &OutcomeQuery<'_>) -> Result<Outcomes, WarehouseError> {
        self.inner.outcomes(query).await
    }

    async fn key_check_value(&self, own: &str) -> Result<String, WarehouseError> {
        self.inner.key_check_value(own).await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}
