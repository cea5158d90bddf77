//! The log on Redis Streams: the contract, and what is particular to a server that can be away, restarted or come back older.

use std::sync::Arc;
use std::time::Duration;

use cartwright::queue::{self, AppendError, OpenError, QueueConfig, ReadError, ReadLimits};

use super::queue::{Log, at, config, events, limit_suite, limits, read_all, suite};
use crate::support::redis::{DURABLE, RedisCluster, RedisServer};

const PATIENCE: Duration = Duration::from_secs(30);

async fn open(url: String) -> Log {
    ready(queue::open(&config(url)).await.unwrap()).await
}

/// Waits until the log answers.
async fn ready(log: Log) -> Log {
    let answers = tokio::time::timeout(PATIENCE, async {
        while log.extent(0).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    answers.await.expect("the log does not answer");
    log
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_on_redis_keeps_the_contract() {
    let server = RedisServer::start(&[]);
    let open_new = async || {
        let _: () = server.command(&["flushall"]);
        open(server.url()).await
    };
    suite(open_new, async || open(server.url()).await).await;

    let _: () = server.command(&["flushall"]);
    let limited = QueueConfig {
        limit_bytes: 64 << 10,
        ..config(server.url())
    };
    let log = ready(queue::open(&limited).await.unwrap()).await;
    limit_suite(&log, limited.limit_bytes).await;
    log.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_on_a_cluster_keeps_the_contract() {
    let cluster = RedisCluster::start();
    let open_new = async || {
        for node in &cluster.nodes {
            let _: () = node.command(&["flushall"]);
        }
        open(cluster.url()).await
    };
    suite(open_new, async || open(cluster.url()).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_count_by_themselves_and_their_number_stays() {
    let server = RedisServer::start(&[]);
    let four = QueueConfig {
        partitions: 4,
        ..config(server.url())
    };
    let log = ready(queue::open(&four).await.unwrap()).await;
    assert_eq!(log.partitions(), 4);
    for partition in 0..4 {
        assert_eq!(log.append(partition, &events(0..3)).await.unwrap(), 0);
    }
    assert_eq!(log.append(3, &events(3..4)).await.unwrap(), 3);
    assert_eq!(log.extent(2).await.unwrap().next, 3);
    let outcome = log.append(4, &events(0..1)).await;
    assert!(matches!(outcome, Err(AppendError::Closed { .. })), "{outcome:?}");
    log.close().await;

    let outcome = queue::open(&config(server.url())).await;
    let Err(OpenError::Refused { reason, .. }) = outcome else {
        panic!("{outcome:?}")
    };
    assert!(reason.contains("set queue.partitions to 4"), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_appended_survives_kill_9_with_fsync_always() {
    let mut server = RedisServer::start(DURABLE);
    let log = open(server.url()).await;
    let mut appended = 0;
    for _ in 0..3 {
        let appending = Arc::clone(&log);
        let append = tokio::spawn(async move {
            let mut next = appended;
            while appending.append(0, &events(next..next + 1)).await.is_ok() {
                next += 1;
            }
            next
        });
        tokio::time::sleep(Duration::from_millis(50)).await;
        server.kill();
        appended = append.await.unwrap();
        server.restart();
        ready(Arc::clone(&log)).await;
        let kept = read_all(&log).await;
        // The one whose answer was lost may be there.
        assert!(
            [appended, appended + 1].contains(&(kept.len() as u64)),
            "{appended}"
        );
        assert_eq!(kept, events(0..kept.len() as u64));
        appended = kept.len() as u64;
    }
    log.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_away_is_said_and_found_again() {
    let mut server = RedisServer::start(DURABLE);
    server.kill();
    let log = queue::open(&config(server.url())).await.unwrap();
    let outcome = log.append(0, &events(0..1)).await;
    assert!(
        matches!(outcome, Err(AppendError::Unavailable { .. })),
        "{outcome:?}"
    );
    server.restart();
    ready(Arc::clone(&log)).await;
    assert_eq!(log.append(0, &events(0..1)).await.unwrap(), 0);

    // It keeps its connections and answers nothing: nobody knows what became of the append.
    server.pause();
    let outcome = log.append(0, &events(1..2)).await;
    assert!(matches!(outcome, Err(AppendError::Unknown { .. })), "{outcome:?}");
    server.resume();
    ready(Arc::clone(&log)).await;
    let log_id = log.extent(0).await.unwrap().log_id;
    let patient = ReadLimits {
        wait: PATIENCE,
        ..limits(10)
    };
    // A reader whose connection is cut is told, and finds the rest when it asks again.
    let reader = {
        let log = Arc::clone(&log);
        tokio::spawn(async move {
            loop {
                match log.read(at(log_id, 1), patient).await {
                    Ok(entries) => return entries,
                    Err(error) => assert!(matches!(error, ReadError::Io(_)), "{error}"),
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
    };
    let _: i64 = server.command(&["client", "kill", "type", "normal"]);
    let appended = tokio::time::timeout(PATIENCE, async {
        while log.append(0, &events(1..2)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    appended.await.unwrap();
    assert_eq!(reader.await.unwrap()[0].offset, 1);
    log.close().await;
}

/// Everything that could be taken for an empty log by mistake.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_came_back_older_or_empty_is_refused_with_its_remedy() {
    let server = RedisServer::start(&[]);
    let stream = "cartwright:{q0}:log";
    let head = "cartwright:{q0}:head";
    let log = open(server.url()).await;
    log.append(0, &events(0..5)).await.unwrap();
    let log_id = log.extent(0).await.unwrap().log_id;
    let appends = async |log: &Log| match log.append(0, &events(5..6)).await {
        Err(AppendError::Unavailable { reason }) => reason.to_string(),
        other => panic!("{other:?}"),
    };
    let reads = async |log: &Log| log.read(at(log_id, 5), limits(1)).await.unwrap_err();

    // A replica took over that had seen three of five.
    let _: () = server.command(&["hset", head, "next", "3"]);
    let _: i64 = server.command(&["xdel", stream, "4-0", "5-0"]);
    assert!(appends(&log).await.contains("came back older"));
    let error = reads(&log).await;
    assert!(matches!(error, ReadError::OutOfRange { .. }), "{error}");
    assert!(
        error.to_string().contains("before anything is appended"),
        "{error}"
    );
    // The remedy: the log goes on where the warehouse is.
    let _: () = server.command(&["xsetid", stream, "5-0"]);
    let _: i64 = server.command(&["hset", head, "next", "5"]);
    assert_eq!(log.append(0, &events(5..6)).await.unwrap(), 5);
    assert_eq!(log.read(at(log_id, 5), limits(1)).await.unwrap()[0].offset, 5);
    // What is missing in between is never passed over.
    let gap = log.read(at(log_id, 2), limits(9)).await.unwrap_err();
    assert!(matches!(gap, ReadError::Corrupt(_)), "{gap}");

    // The stream was evicted or deleted, its head was not.
    let _: i64 = server.command(&["del", stream]);
    assert!(appends(&log).await.contains("empty"));
    let gap = log.read(at(log_id, 5), limits(1)).await.unwrap_err();
    assert!(matches!(gap, ReadError::Corrupt(_)), "{gap}");

    // All is gone: who has seen the log before refuses, and who has not has another log.
    let _: () = server.command(&["flushall"]);
    assert!(appends(&log).await.contains("empty"));
    let error = reads(&log).await;
    assert!(matches!(error, ReadError::OutOfRange { .. }), "{error}");
    log.close().await;
    let other = open(server.url()).await;
    let error = reads(&other).await;
    assert!(matches!(error, ReadError::OutOfRange { .. }), "{error}");
    other.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_nodes_append_densely_and_wake_each_others_readers() {
    let server = RedisServer::start(&[]);
    let nodes = [open(server.url()).await, open(server.url()).await];
    let log_id = nodes[0].extent(0).await.unwrap().log_id;
    assert_eq!(nodes[1].extent(0).await.unwrap().log_id, log_id);
    let writers: Vec<_> = nodes
        .iter()
        .map(|node| {
            let node = Arc::clone(node);
            tokio::spawn(async move {
                for _ in 0..100 {
                    node.append(0, &events(0..2)).await.unwrap();
                }
            })
        })
        .collect();
    let patient = ReadLimits {
        wait: PATIENCE,
        ..limits(64)
    };
    let mut next = 0;
    while next < 400 {
        for entry in nodes[1].read(at(log_id, next), patient).await.unwrap() {
            assert_eq!(entry.offset, next);
            next += 1;
        }
    }
    for writer in writers {
        writer.await.unwrap();
    }
    for node in nodes {
        node.close().await;
    }
}
