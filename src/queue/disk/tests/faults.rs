use std::time::Duration;

use super::{config, event, events, limits, position, read_all, rounds, settle};
use crate::queue::sim::SimDisk;
use crate::queue::{AppendError, OpenError, QueueConfig, ReadLimits};

#[tokio::test]
async fn a_failed_sync_closes_the_log_and_proves_nothing_by_a_retry() {
    for seed in 0..u64::from(rounds(20)) {
        let disk = SimDisk::new(seed);
        let log = disk.open(&config()).await.unwrap();
        log.append(0, &events(0..3, 500)).await.unwrap();
        settle(&disk).await;
        disk.fail_syncs(1);
        let outcome = log.append(0, &events(3..5, 500)).await;
        assert!(matches!(outcome, Err(AppendError::Unknown { .. })), "{outcome:?}");
        for _ in 0..2 {
            let outcome = log.append(0, &events(5..6, 500)).await;
            assert!(matches!(outcome, Err(AppendError::Closed { .. })), "{outcome:?}");
        }
        assert_eq!(read_all(&log).await, events(0..3, 500));
        log.close().await;

        // The page cache still shows the group whose sync failed. Once it is readable it must be durable.
        let log = disk.open(&config()).await.unwrap();
        let shown = read_all(&log).await;
        assert!(shown.len() == 3 || shown.len() == 5);
        disk.power_cut();
        let log = disk.open(&config()).await.unwrap();
        assert_eq!(read_all(&log).await, shown);
        log.close().await;
    }
}

#[tokio::test]
async fn a_failed_write_closes_the_log_and_its_remains_are_erased() {
    let disk = SimDisk::new(7);
    let log = disk.open(&config()).await.unwrap();
    log.append(0, &events(0..3, 500)).await.unwrap();
    settle(&disk).await;
    disk.fail_writes(1);
    assert!(matches!(
        log.append(0, &events(3..9, 500)).await,
        Err(AppendError::Unknown { .. })
    ));
    assert!(matches!(
        log.append(0, &events(3..4, 500)).await,
        Err(AppendError::Closed { .. })
    ));
    log.close().await;
    let log = disk.open(&config()).await.unwrap();
    assert_eq!(read_all(&log).await, events(0..3, 500));
    assert_eq!(log.append(0, &events(3..4, 10)).await.unwrap(), 3);
    log.close().await;
    let log = disk.open(&config()).await.unwrap();
    assert_eq!(read_all(&log).await[..3], events(0..3, 500));
    log.close().await;
}

#[tokio::test]
async fn groups_tear_at_any_sector_and_no_half_of_one_is_ever_read() {
    for seed in 0..u64::from(rounds(60)) {
        let disk = SimDisk::with_sector_bytes(seed, if seed.is_multiple_of(2) { 512 } else { 4096 });
        let log = disk.open(&config()).await.unwrap();
        log.append(0, &events(0..2, 700)).await.unwrap();
        settle(&disk).await;
        // One write and one sync make a group: the power goes in the middle of one of them.
        disk.power_cut_after(seed % 2);
        let outcome = log.append(0, &events(2..12, 700)).await;
        assert!(matches!(outcome, Err(AppendError::Unknown { .. })), "{outcome:?}");
        let log = disk.open(&config()).await.unwrap();
        let kept = read_all(&log).await;
        assert!(kept.len() == 2 || kept.len() == 12, "{} records", kept.len());
        assert_eq!(kept, events(0..kept.len() as u64, 700));
        // What is written over the torn end must not meet its remains.
        let first = kept.len() as u64;
        assert_eq!(log.append(0, &[event(first, 30)]).await.unwrap(), first);
        disk.power_cut();
        let log = disk.open(&config()).await.unwrap();
        assert_eq!(read_all(&log).await.last(), Some(&event(first, 30)));
        log.close().await;
    }
}

#[tokio::test]
async fn a_power_cut_at_any_operation_loses_nothing_acknowledged() {
    // Creation, appends over several segments, trimming: each operation in turn is the last one.
    for step in 0..u64::from(rounds(150)) {
        let disk = SimDisk::new(step);
        disk.power_cut_after(step);
        let mut acknowledged = 0;
        if let Ok(log) = disk.open(&config()).await {
            for round in 0..12 {
                let ids = round * 5..round * 5 + 5;
                match log.append(0, &events(ids, 900)).await {
                    Ok(first) => acknowledged = first + 5,
                    Err(_) => break,
                }
                if round % 5 == 4 {
                    let Ok(extent) = log.extent(0).await else { break };
                    let below = super::Position {
                        log_id: extent.log_id,
                        partition: 0,
                        offset: extent.next,
                    };
                    if log.trim(below).await.is_err() {
                        break;
                    }
                }
            }
        }
        if disk.power_cuts() == 0 {
            disk.power_cut();
        }
        let log = disk
            .open(&config())
            .await
            .unwrap_or_else(|error| panic!("step {step}: {error}"));
        let extent = log.extent(0).await.unwrap();
        let next = extent.next;
        assert!(
            next == acknowledged || next == acknowledged + 5,
            "step {step}: {next}, {acknowledged}"
        );
        assert_eq!(
            read_all(&log).await,
            events(extent.first..next, 900),
            "step {step}"
        );
        log.close().await;
    }
}

#[tokio::test]
async fn a_power_cut_during_recovery_loses_nothing_either() {
    for seed in 0..u64::from(rounds(40)) {
        let disk = SimDisk::new(seed);
        let log = disk.open(&config()).await.unwrap();
        log.append(0, &events(0..4, 900)).await.unwrap();
        settle(&disk).await;
        disk.power_cut_after(0);
        assert!(log.append(0, &events(4..8, 900)).await.is_err());
        for step in 0..6 {
            disk.power_cut_after(step);
            if let Ok(log) = disk.open(&config()).await {
                log.close().await;
            }
        }
        disk.power_cut();
        let log = disk.open(&config()).await.unwrap();
        let kept = read_all(&log).await;
        assert_eq!(kept, events(0..if kept.len() > 4 { 8 } else { 4 }, 900));
        log.close().await;
    }
}

#[tokio::test]
async fn a_full_disk_refuses_appends_and_lets_them_in_again() {
    let disk = SimDisk::new(1);
    let log = disk.open(&config()).await.unwrap();
    settle(&disk).await;
    disk.set_capacity_bytes(Some(disk.used_bytes() + 1000));
    let mut appended = 0;
    let refusal = loop {
        match log.append(0, &events(appended..appended + 1, 900)).await {
            Ok(first) => appended = first + 1,
            Err(refusal) => break refusal,
        }
    };
    assert!(matches!(refusal, AppendError::Full { .. }), "{refusal:?}");
    assert!(appended > 12, "what was prepared is used: {appended}");
    assert!(matches!(
        log.append(0, &[event(1, 900)]).await,
        Err(AppendError::Full { .. })
    ));

    // A view catches up, and what it no longer needs makes room.
    log.trim(position(&log, appended).await).await.unwrap();
    let mut outcome = log.append(0, &events(appended..appended + 1, 900)).await;
    for _ in 0..100 {
        if outcome.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        outcome = log.append(0, &events(appended..appended + 1, 900)).await;
    }
    assert_eq!(outcome.unwrap(), appended);
    log.close().await;
    let log = disk.open(&config()).await.unwrap();
    assert_eq!(read_all(&log).await.last(), Some(&event(appended, 900)));
    log.close().await;
}

#[tokio::test]
async fn a_failing_preparation_is_tried_again_and_closes_nothing() {
    let disk = SimDisk::new(1);
    let log = disk.open(&config()).await.unwrap();
    settle(&disk).await;
    log.close().await;
    disk.lose("000000000001.segment");
    disk.refuse_files(true);
    let log = disk.open(&config()).await.unwrap();
    let mut appended = 0;
    let reason = loop {
        match log.append(0, &[event(appended, 900)]).await {
            Ok(first) => appended = first + 1,
            Err(AppendError::Closed { reason }) => break reason,
            Err(error) => panic!("{error}"),
        }
    };
    assert!(reason.contains("could not be prepared"), "{reason}");

    disk.refuse_files(false);
    let count = appended + 30;
    while appended < count {
        match log.append(0, &[event(appended, 900)]).await {
            Ok(first) => appended = first + 1,
            Err(AppendError::Closed { .. }) => tokio::time::sleep(Duration::from_millis(10)).await,
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(read_all(&log).await, events(0..count, 900));
    log.close().await;
}

#[tokio::test]
async fn one_disk_takes_one_log_at_a_time() {
    let disk = SimDisk::new(1);
    let log = disk.open(&config()).await.unwrap();
    assert!(matches!(
        disk.open(&config()).await,
        Err(OpenError::Locked { .. })
    ));
    log.close().await;
    log.close().await;
    disk.open(&config()).await.unwrap().close().await;
}

#[tokio::test]
async fn a_reader_sees_nothing_before_it_is_durable() {
    let disk = SimDisk::new(1);
    let log = disk.open(&config()).await.unwrap();
    settle(&disk).await;
    let from = position(&log, 0).await;
    disk.fail_syncs(1);
    let wait = ReadLimits {
        wait: Duration::from_millis(50),
        ..limits(10)
    };
    let (appended, read) = tokio::join!(log.append(0, &[]), log.read(from, wait));
    assert_eq!((appended.unwrap(), read.unwrap().len()), (0, 0));
    let events = [event(0, 10)];
    let (appended, read) = tokio::join!(log.append(0, &events), log.read(from, wait));
    assert!(matches!(appended, Err(AppendError::Unknown { .. })));
    assert_eq!(read.unwrap().len(), 0);
    log.close().await;
}

#[tokio::test]
async fn a_prepared_segment_is_used_after_a_restart_unless_its_size_changed() {
    let disk = SimDisk::new(1);
    let log = disk.open(&config()).await.unwrap();
    settle(&disk).await;
    log.close().await;
    let before = disk.operations();
    let log = disk.open(&config()).await.unwrap();
    settle(&disk).await;
    assert!(disk.operations() - before < 10, "nothing is prepared anew");
    log.close().await;

    let larger = QueueConfig {
        segment_bytes: 64 * 1024,
        ..config()
    };
    let log = disk.open(&larger).await.unwrap();
    log.append(0, &events(0..40, 1000)).await.unwrap();
    assert_eq!(read_all(&log).await, events(0..40, 1000));
    log.close().await;
}
