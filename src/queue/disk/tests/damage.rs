use super::{config, event, events, position, read_all, rounds, settle};
use crate::queue::sim::SimDisk;
use crate::queue::{OpenError, ReadError, ReadLimits};

/// A closed log of three segments with known content.
async fn written(disk: &SimDisk) -> usize {
    let log = disk.open(&config()).await.unwrap();
    let mut ids = 0;
    while disk
        .names()
        .iter()
        .filter(|name| name.ends_with(".segment"))
        .count()
        < 4
    {
        log.append(0, &events(ids..ids + 3, 600)).await.unwrap();
        ids += 3;
    }
    settle(disk).await;
    log.close().await;
    ids as usize
}

async fn reason(disk: &SimDisk) -> String {
    match disk.open(&config()).await {
        Err(OpenError::Corrupt { reason, .. }) => reason,
        other => panic!("expected corruption, got {other:?}"),
    }
}

#[tokio::test]
async fn a_flipped_bit_anywhere_is_refused_or_harmless() {
    let disk = SimDisk::new(3);
    let count = written(&disk).await;
    let names = disk.names();
    let files: Vec<_> = names.iter().filter(|name| *name != "lock").collect();
    let mut refused = 0;
    for round in 0..rounds(120) as usize {
        let name = files[round % files.len()];
        let size = disk.content(name).unwrap().len();
        // Half of the flips hit the headers and the first groups, where there is most to break.
        let at = if round % 2 == 0 {
            (round * 37) % size.min(64)
        } else {
            (round * 7919) % size
        };
        let flip = |bytes: &mut Vec<u8>| bytes[at] ^= 1 << (round % 8);
        let before: Vec<_> = names.iter().map(|name| disk.content(name).unwrap()).collect();
        disk.tamper(name, flip);
        match disk.open(&config()).await {
            Err(OpenError::Corrupt { reason, .. }) => {
                refused += 1;
                assert!(
                    reason.contains(name.as_str()) && reason.contains("backup"),
                    "{name} {at}: {reason}"
                );
            }
            Err(error) => panic!("{name} at {at}: {error}"),
            Ok(log) => {
                assert_eq!(
                    read_all(&log).await,
                    events(0..count as u64, 600),
                    "{name} at {at}"
                );
                settle(&disk).await;
                log.close().await;
            }
        }
        for (name, content) in names.iter().zip(before) {
            disk.tamper(name, |bytes| *bytes = content);
        }
    }
    assert!(refused > 20, "{refused} flips were noticed");
}

#[tokio::test]
async fn every_region_of_a_durable_group_is_guarded() {
    // Header, its checksum, the offset, the mark, the time, the first record's length, the body, the padding's neighbour.
    for (region, at) in [0, 4, 8, 12, 16, 20, 24, 32, 40, 48, 60, 400]
        .into_iter()
        .enumerate()
    {
        let disk = SimDisk::new(region as u64);
        written(&disk).await;
        let name = "000000000000.segment";
        disk.tamper(name, |bytes| bytes[4096 + at] ^= 0x10);
        let reason = reason(&disk).await;
        assert!(reason.starts_with(&format!("{name} at byte 4096")), "{reason}");
    }
}

#[tokio::test]
async fn damage_to_the_last_group_is_noticed_after_a_clean_close() {
    let disk = SimDisk::new(1);
    let log = disk.open(&config()).await.unwrap();
    log.append(0, &[event(0, 300)]).await.unwrap();
    log.close().await;
    disk.tamper("000000000000.segment", |bytes| bytes[4096 + 100] ^= 1);
    assert!(reason(&disk).await.contains("offsets up to 1 were durable"));
}

#[tokio::test]
async fn damage_under_a_running_log_is_reported_by_the_read() {
    let disk = SimDisk::new(1);
    written(&disk).await;
    let log = disk.open(&config()).await.unwrap();
    disk.tamper("000000000001.segment", |bytes| bytes[4096 + 100] ^= 1);
    let mut at = position(&log, 0).await;
    let limits = ReadLimits {
        max_records: 10,
        max_bytes: 1 << 20,
        wait: std::time::Duration::ZERO,
    };
    let error = loop {
        match log.read(at, limits).await {
            Ok(entries) => at.offset += entries.len() as u64,
            Err(error) => break error,
        }
    };
    let ReadError::Corrupt(text) = error else {
        panic!("{error}")
    };
    assert!(text.contains("000000000001.segment at byte 4096"), "{text}");
    log.close().await;
}

#[tokio::test]
async fn missing_files_are_named() {
    for (lost, expected) in [
        ("000000000001.segment", "000000000001.segment is missing"),
        ("log.meta", "log.meta"),
    ] {
        let disk = SimDisk::new(1);
        written(&disk).await;
        disk.lose(lost);
        assert!(reason(&disk).await.contains(expected));
    }
    let disk = SimDisk::new(1);
    written(&disk).await;
    for name in disk.names().iter().filter(|name| name.ends_with(".segment")) {
        disk.lose(name);
    }
    assert!(reason(&disk).await.contains("every segment file is missing"));
}

#[tokio::test]
async fn stale_bytes_do_not_come_back_to_life() {
    // The blocks of an older segment of this log, and of another log, under the segment that is prepared.
    let other = SimDisk::new(9);
    written(&other).await;
    let foreign = other.content("000000000000.segment").unwrap();
    for stale_of_own in [true, false] {
        let disk = SimDisk::new(2);
        let count = written(&disk).await as u64;
        let prepared = disk
            .names()
            .iter()
            .filter(|name| name.ends_with(".segment"))
            .max()
            .unwrap()
            .clone();
        let own = disk.content("000000000001.segment").unwrap();
        let stale = if stale_of_own { &own } else { &foreign };
        disk.tamper(&prepared, |bytes| bytes[4096..].copy_from_slice(&stale[4096..]));
        let log = disk.open(&config()).await.unwrap();
        assert_eq!(read_all(&log).await, events(0..count, 600));
        log.close().await;

        // And behind the end of the segment that is written.
        let last = format!("{:012}.segment", count_of(&prepared) - 1);
        let used = end_of(&disk.content(&last).unwrap());
        disk.tamper(&last, |bytes| {
            let size = bytes.len();
            bytes[used..].copy_from_slice(&stale[4096..4096 + size - used]);
        });
        let log = disk.open(&config()).await.unwrap();
        assert_eq!(read_all(&log).await, events(0..count, 600));
        assert_eq!(log.append(0, &[event(count, 40)]).await.unwrap(), count);
        log.close().await;
        let log = disk.open(&config()).await.unwrap();
        assert_eq!(read_all(&log).await.len() as u64, count + 1);
        log.close().await;
    }
}

fn count_of(name: &str) -> u64 {
    name.trim_end_matches(".segment").parse().unwrap()
}

/// Past the last byte that is not zero, rounded up to where a group may start.
fn end_of(bytes: &[u8]) -> usize {
    (bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1).next_multiple_of(8)
}
