//! What is particular to Redis: a server that is away, restarted, paused, emptied or holds what nobody here wrote.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use cartwright::hot::{self, HotConfig, HotObserver, HotStore};

use super::{Recording, answers, config, eventually, open, open_ready, profile, subject};
use crate::support::redis::RedisServer;

/// The key of subject 1.
fn key(server: &RedisServer) -> String {
    let keys: Vec<String> = server.command(&["keys", "*:profile:a:k.1"]);
    assert_eq!(keys.len(), 1);
    keys.into_iter().next().unwrap()
}

async fn put(store: &dyn HotStore, n: u64) {
    store
        .put_newer(&[(subject(1), profile(1, n, "x"))])
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_opens_without_its_server_and_finds_it_later() {
    let mut server = RedisServer::start(&[]);
    server.kill();
    let store = open(server.url()).await;
    assert!(store.get(&subject(1)).await.is_err());
    server.restart();
    answers(&*store).await;
    put(&*store, 1).await;
    assert_eq!(store.get(&subject(1)).await.unwrap().unwrap().version.n, 1);
}

#[tokio::test]
async fn a_server_keeps_no_note_of_who_read_what_where_nobody_wants_reports() {
    let server = RedisServer::start(&[]);
    let tracked = || {
        let stats: String = server.command(&["info", "stats"]);
        !stats.contains("tracking_total_keys:0")
    };
    for reports in [false, true] {
        let wanted = HotConfig {
            reports,
            ..config(server.url())
        };
        let store = hot::open(&wanted).await.unwrap();
        answers(&*store).await;
        put(&*store, 1).await;
        assert!(store.get(&subject(1)).await.unwrap().is_some());
        assert_eq!(store.observe(Arc::new(Recording::default())), reports);
        assert_eq!(tracked(), reports);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_is_reported_lost_and_found_again() {
    let mut server = RedisServer::start(&[]);
    let store = open_ready(server.url()).await;
    let observer = Arc::new(Recording::default());
    store.observe(Arc::clone(&observer) as Arc<dyn HotObserver>);
    put(&*store, 1).await;
    store.publish(3, &[], 7).await.unwrap();

    server.kill();
    eventually(|| !observer.following.load(Ordering::SeqCst)).await;
    assert!(store.get(&subject(1)).await.is_err());

    server.restart();
    eventually(|| observer.following.load(Ordering::SeqCst)).await;
    answers(&*store).await;
    // It kept nothing, and the mark tells.
    assert_eq!(store.get(&subject(1)).await.unwrap(), None);
    assert_eq!(store.published(3).await.unwrap(), None);
    put(&*store, 1).await;
    assert_eq!(store.get(&subject(1)).await.unwrap().unwrap().version.n, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_falls_silent_is_given_up_and_taken_back() {
    let server = RedisServer::start(&[]);
    let store = open_ready(server.url()).await;
    let observer = Arc::new(Recording::default());
    store.observe(Arc::clone(&observer) as Arc<dyn HotObserver>);
    put(&*store, 1).await;
    server.pause();
    eventually(|| !observer.following.load(Ordering::SeqCst)).await;
    assert!(store.get(&subject(1)).await.is_err());
    server.resume();
    answers(&*store).await;
    assert_eq!(store.get(&subject(1)).await.unwrap().unwrap().version.n, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_the_server_ends_is_lost_and_made_again() {
    let server = RedisServer::start(&[]);
    let store = open_ready(server.url()).await;
    let observer = Arc::new(Recording::default());
    store.observe(Arc::clone(&observer) as Arc<dyn HotObserver>);
    let _: i64 = server.command(&["client", "kill", "type", "normal"]);
    eventually(|| observer.lost.load(Ordering::SeqCst) > 0).await;
    eventually(|| observer.following.load(Ordering::SeqCst)).await;
    answers(&*store).await;
    // The new connection reports as the old one did.
    store.get(&subject(1)).await.unwrap();
    put(&*store, 1).await;
    eventually(|| observer.changed.lock().unwrap().contains(&subject(1))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flushed_server_is_reported_lost_as_a_whole() {
    let server = RedisServer::start(&[]);
    let store = open_ready(server.url()).await;
    let observer = Arc::new(Recording::default());
    store.observe(Arc::clone(&observer) as Arc<dyn HotObserver>);
    eventually(|| observer.following.load(Ordering::SeqCst)).await;
    put(&*store, 1).await;
    store.get(&subject(1)).await.unwrap();
    let _: () = server.command(&["flushall"]);
    eventually(|| observer.lost.load(Ordering::SeqCst) > 0).await;
    eventually(|| observer.following.load(Ordering::SeqCst)).await;
    assert_eq!(store.get(&subject(1)).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_forgot_its_scripts_is_taught_again() {
    let server = RedisServer::start(&[]);
    let store = open_ready(server.url()).await;
    put(&*store, 2).await;
    let _: () = server.command(&["script", "flush"]);
    put(&*store, 1).await;
    assert_eq!(store.get(&subject(1)).await.unwrap().unwrap().version.n, 2);
    let _: () = server.command(&["script", "flush"]);
    put(&*store, 3).await;
    assert_eq!(store.get(&subject(1)).await.unwrap().unwrap().version.n, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_here_wrote_is_a_miss_and_replaced() {
    let server = RedisServer::start(&[]);
    let store = open_ready(server.url()).await;
    put(&*store, 1).await;
    let key = key(&server);
    for garbage in [
        "",
        "short",
        "\u{2}an other format of a value, longer than its head",
    ] {
        let _: () = server.command(&["set", &key, garbage]);
        assert_eq!(store.get(&subject(1)).await.unwrap(), None, "{garbage:?}");
        put(&*store, 1).await;
        assert_eq!(store.get(&subject(1)).await.unwrap().unwrap().version.n, 1);
    }
}

/// Numbers beyond what a double holds are still told apart, and bytes compare unsigned.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_compare_exactly() {
    let server = RedisServer::start(&[]);
    let store = open_ready(server.url()).await;
    for (have, late) in [
        ((1 << 60) + 1, 1 << 60),
        (0x80, 0x7f),
        (0x0100, 0xff),
        (u64::MAX, u64::MAX - 1),
    ] {
        let _: () = server.command(&["flushall"]);
        put(&*store, have).await;
        put(&*store, late).await;
        assert_eq!(store.get(&subject(1)).await.unwrap().unwrap().version.n, have);
        let _: () = server.command(&["flushall"]);
        put(&*store, late).await;
        put(&*store, have).await;
        assert_eq!(store.get(&subject(1)).await.unwrap().unwrap().version.n, have);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn profiles_expire_apart_from_each_other_and_marks_stay() {
    let server = RedisServer::start(&[]);
    let store = open_ready(server.url()).await;
    // More than one call of the script, in every slot.
    let many: Vec<_> = (0..20_000)
        .map(|n| (subject(n), profile(1, u64::from(n), "x")))
        .collect();
    store.put_newer(&many).await.unwrap();
    store.publish(0, &[], 1).await.unwrap();
    let keys: Vec<String> = server.command(&["keys", "*:profile:*"]);
    assert_eq!(keys.len(), many.len());
    let mut connection = server.connection();
    let mut pipeline = redis::pipe();
    for key in &keys {
        pipeline.pttl(key);
    }
    let left: Vec<i64> = pipeline.query(&mut connection).unwrap();
    // A tenth around 60 s, less what the test took.
    assert!(left.iter().all(|ms| (1..=66_000).contains(ms)));
    let (least, most) = (left.iter().min().unwrap(), left.iter().max().unwrap());
    assert!(most - least > 10_000, "{least} to {most} ms");
    let marks: Vec<String> = server.command(&["keys", "*:published:*"]);
    assert_eq!(server.command::<i64>(&["pttl", &marks[0]]), -1);
}
