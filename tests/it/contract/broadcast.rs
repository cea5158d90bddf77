//! What nodes tell each other by Redis' pub/sub.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use cartwright::broadcast::{Broadcast, Channel};
use cartwright::domain::ids::{Environment, Shop};

use crate::support::redis::{RedisCluster, RedisServer};

/// A node that keeps what it hears.
struct Node {
    broadcast: Broadcast,
    heard: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Node {
    fn open(url: &str, shop: &str) -> Node {
        let shop = Shop::new(shop, Environment::Live).unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&heard);
        let channel = Channel::find(url, &shop).unwrap();
        Node {
            broadcast: channel.open(Arc::new(move |message| {
                kept.lock().unwrap().push(message.to_vec())
            })),
            heard,
        }
    }

    /// Sends until it is taken, and returns once this node itself has heard it.
    async fn tell(&self, message: &[u8]) {
        eventually(async || self.broadcast.send(message).await.is_ok()).await;
        eventually(async || self.has_heard(message)).await;
    }

    fn has_heard(&self, message: &[u8]) -> bool {
        self.heard.lock().unwrap().iter().any(|heard| heard == message)
    }
}

async fn eventually(is_so: impl AsyncFn() -> bool) {
    tokio::time::timeout(Duration::from_secs(20), async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await
    .expect("not within 20 s");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_nodes_of_a_shop_hear_what_one_sends_and_nobody_else() {
    let server = RedisServer::start(&[]);
    let nodes = [
        Node::open(&server.url(), "acme"),
        Node::open(&server.url(), "acme"),
    ];
    let other_shop = Node::open(&server.url(), "other");
    let other_database = Node::open(&format!("{}/1", server.url()), "acme");
    for node in nodes.iter().chain([&other_shop, &other_database]) {
        node.tell(b"here").await;
    }
    // Any bytes, and many of them.
    let large: Vec<u8> = (0..1 << 20).map(|n| (n % 251) as u8).collect();
    nodes[0].tell(&large).await;
    nodes[0].tell(b"").await;
    for message in [&large[..], b""] {
        eventually(async || nodes[1].has_heard(message)).await;
    }
    // What was sent later came, and the earlier did not.
    for node in [&other_shop, &other_database] {
        node.tell(b"later").await;
        assert_eq!(*node.heard.lock().unwrap(), [b"here".to_vec(), b"later".to_vec()]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_listens_again_after_its_server_came_back() {
    let mut server = RedisServer::start(&[]);
    let nodes = [
        Node::open(&server.url(), "acme"),
        Node::open(&server.url(), "acme"),
    ];
    for node in &nodes {
        node.tell(b"before").await;
    }
    server.kill();
    eventually(async || nodes[0].broadcast.send(b"lost").await.is_err()).await;
    server.restart();
    for (node, message) in nodes.iter().zip([b"first", b"after"]) {
        node.tell(message).await;
    }
    eventually(async || nodes[0].has_heard(b"after")).await;
    for node in &nodes {
        assert!(!node.has_heard(b"lost"));
    }
}

/// Each is connected to another node of the cluster: the second's URL begins with one that nobody listens at.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_at_different_nodes_of_a_cluster_hear_each_other() {
    let cluster = RedisCluster::start();
    let url = cluster.url();
    let (scheme, servers) = url.split_once("://").unwrap();
    let reversed = servers.rsplit(',').collect::<Vec<_>>().join(",");
    let nobody = crate::support::process::free_addr();
    let nodes = [
        Node::open(&url, "acme"),
        Node::open(&format!("{scheme}://{nobody},{reversed}"), "acme"),
    ];
    for node in &nodes {
        node.tell(b"here").await;
    }
    for (node, message) in nodes.iter().zip([b"one", b"two"]) {
        node.tell(message).await;
    }
    eventually(async || nodes[0].has_heard(b"two") && nodes[1].has_heard(b"one")).await;
}

/// A user who may not use the channel: the link stays away, and every send says so at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_permission_nothing_is_sent_until_it_is_given() {
    let server = RedisServer::start(&[]);
    let () = server.command(&[
        "acl",
        "setuser",
        "shop",
        "on",
        ">secret",
        "~*",
        "+@all",
        "resetchannels",
    ]);
    let url = server.url().replacen("redis://", "redis://shop:secret@", 1);
    let node = Node::open(&url, "acme");
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(
        node.broadcast.send(b"refused").await.unwrap_err().to_string(),
        "not connected"
    );
    let () = server.command(&["acl", "setuser", "shop", "&cartwright:*"]);
    node.tell(b"allowed").await;
    assert!(!node.has_heard(b"refused"));
}
