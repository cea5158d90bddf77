//! The warehouse's promises.

mod effects;
mod experiments;
mod identity;
mod orders;
mod postgres;
mod sqlite;
mod together;
mod transaction;

use std::sync::Arc;

use async_trait::async_trait;
use cartwright::domain::ids::{SubjectId, Timestamp};
use cartwright::domain::profile::Snapshot;
use cartwright::domain::transform::Effect;
use cartwright::warehouse::{Applied, Batch, StoredPosition, Warehouse, WarehouseError};

/// One database of its own, gone with the value.
#[async_trait]
pub(super) trait Backend: Send + Sync {
    async fn open(&self) -> Arc<dyn Warehouse>;

    /// Every row of every table as text, in a fixed order.
    async fn dump(&self) -> Vec<String>;

    /// The first column of each row of a query in plain SQL.
    async fn integers(&self, sql: &'static str) -> Vec<i64>;
}

/// The suite as tests against one backend, which starts from `Default`.
macro_rules! contract {
    ($backend:ident) => {
        fn fresh() -> Box<dyn super::Backend> {
            Box::new($backend::default())
        }

        super::tests! { transaction {
            one {
                a_batch_is_applied_whole
                a_redelivered_batch_changes_nothing
                the_same_events_at_new_offsets_change_no_view
                a_position_that_moved_is_refused
                partitions_move_apart
                changes_are_told_in_order_by_whoever_wrote_last
                versions_only_grow
                documents_of_many_are_read_together
                what_cannot_be_counted_is_quarantined
                forgotten_ids_are_pruned_and_imports_are_not
                an_effect_that_cannot_be_stored_rejects_the_batch
                an_apply_cut_short_leaves_all_or_nothing
                readers_see_whole_batches_while_one_is_applied
                rulesets_count_up_and_the_same_source_keeps_its_version
                every_ruleset_is_kept
                pauses_are_kept_until_they_end
                the_first_key_check_value_stays
                purchases_are_the_newest_orders_without_charges
                the_catalogue_holds_the_latest_of_each_statement
                sessions_are_gathered_from_the_newest_events
                    segments_follow_the_documents_written
            }
            many { where_batches_end_does_not_matter }
        }
        together {
            one {
                a_document_says_of_each_partition_how_far_it_is_folded
                a_login_joins_what_several_partitions_say
                one_position_that_moved_refuses_all
            }
            many { together_is_as_one_after_the_other }
        }
        experiments {
            one {
                outcomes_follow_customers_across_a_login
                losses_add_up_once
            }
            many { }
        }
        orders {
            one {
                the_lines_of_the_winning_report_replace_the_former_ones
                a_correction_after_a_withdrawal_brings_nothing_back
            }
            many {
                the_verified_report_wins_whichever_comes_first
                a_cancellation_may_come_before_its_order
                a_browser_cannot_cancel_what_a_server_reported
                a_refund_counts_once
            }
        }
        identity {
            one {
                a_withdrawal_reaches_every_device_of_the_person
                a_login_on_a_device_never_seen_points_to_the_user
                    a_denial_remembered_takes_the_shopper_off_later_events
                    consent_counts_even_in_quarantine
                quarantine_keeps_nothing_of_who_had_denied_analytics
            }
            many {
                guest_login_late_guest_event_and_order_end_alike
                an_unlink_takes_the_guest_out_again
                a_shared_device_joins_nobody_to_a_stranger
                an_alias_joins_two_users_and_their_devices
            }
        } }
    };
}
use contract;

macro_rules! tests {
    ($($module:ident { one { $($one:ident)* } many { $($many:ident)* } })*) => { $(
        mod $module {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $one() {
                    super::super::$module::$one(&*super::fresh()).await;
                }
            )*
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $many() {
                    super::super::$module::$many(&super::fresh).await;
                }
            )*
        }
    )* };
}
use tests;

const LOG: uuid::Uuid = uuid::Uuid::from_u128(7);
const NOW: Timestamp = Timestamp(1_700_000_000_000);

/// A batch of one partition, from `from` to the effects' end.
fn batch(partition: u16, from: u64, effects: &[(u64, Effect)]) -> Batch<'_> {
    let position = |offset| StoredPosition {
        log_id: LOG,
        partition,
        offset,
    };
    Batch {
        expected: (from > 0).then(|| position(from)),
        next: position(from + effects.len() as u64),
        effects,
        unreadable: &[],
        now: NOW,
        ruleset: None,
        dedupe_floor: None,
    }
}

/// Feeds effects to a warehouse as one partition of a log.
struct Lane {
    warehouse: Arc<dyn Warehouse>,
    partition: u16,
    offset: u64,
}

impl Lane {
    async fn new(backend: &dyn Backend) -> Lane {
        Lane {
            warehouse: backend.open().await,
            partition: 0,
            offset: 0,
        }
    }

    async fn apply(&mut self, effects: &[Effect]) -> Applied {
        self.try_apply(effects).await.unwrap()
    }

    async fn try_apply(&mut self, effects: &[Effect]) -> Result<Applied, WarehouseError> {
        let numbered: Vec<(u64, Effect)> = (self.offset..).zip(effects.iter().cloned()).collect();
        let applied = self
            .warehouse
            .apply(&batch(self.partition, self.offset, &numbered))
            .await?;
        self.offset += effects.len() as u64;
        Ok(applied)
    }

    async fn document(&self, subject: &SubjectId) -> Option<Snapshot> {
        let (version, bytes) = self.warehouse.document(subject).await.unwrap()?;
        let document = Snapshot::read(bytes).unwrap();
        assert_eq!(document.version(), version);
        Some(document)
    }

    /// What a document says, without its version and how far it was folded.
    async fn view(&self, subject: &SubjectId) -> Option<String> {
        let document = self.document(subject).await?;
        let mut view: serde_json::Value = serde_json::from_str(&document.to_json(NOW)).unwrap();
        for own in ["version", "as_of"] {
            view.as_object_mut().unwrap().remove(own).unwrap();
        }
        // A currency whose only order was taken back says as little as one that never was.
        let currencies = view["currencies"].as_object_mut().unwrap();
        currencies.retain(|_, totals| totals.as_object().unwrap().values().any(|total| *total != 0));
        Some(view.to_string())
    }
}

/// Every order of `items`.
fn permutations<T: Clone>(items: &[T]) -> Vec<Vec<T>> {
    if items.len() <= 1 {
        return vec![items.to_vec()];
    }
    let mut all = Vec::new();
    for at in 0..items.len() {
        let mut rest = items.to_vec();
        let first = rest.remove(at);
        for mut order in permutations(&rest) {
            order.insert(0, first.clone());
            all.push(order);
        }
    }
    all
}
