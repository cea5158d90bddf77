//! What one node took another one counts at once: no lane runs here unless a test starts one.

use serde_json::{Value, json};

use super::workers::{Node, eventually};
use crate::support::app::TestApp;
use crate::support::stack::{Server, Sickness, Stack, Stores};

const RULESET: &str = r#"
version: 1
currency: GBP
placements:
  promo: {kind: content, fallback: {headline: none}}
segments:
  none: {when: profile.events == 0}
  one: {when: profile.events == 1}
  two: {when: profile.events == 2}
  three: {when: profile.events == 3}
experiences:
  - id: welcome
    placement: promo
    cap: {per: session, count: 1}
    payload: {headline: welcome}
"#;

const GUEST: &str = "/personalize?anonymous_id=a1&placements=";

async fn two_nodes() -> ([Node; 2], cartwright::config::Config, Stores) {
    let (config, stores) = TestApp::on(Stack::Networked).await.ruleset(RULESET).config();
    let nodes = [
        Node::start(&config, "api").await,
        Node::start(&config, "api").await,
    ];
    eventually("both listen", async || listeners(&stores) == [2]).await;
    (nodes, config, stores)
}

/// How many listen on each channel of the Redis with the hot profiles.
fn listeners(stores: &Stores) -> Vec<u64> {
    let channels: Vec<String> = stores.redis().command(&["pubsub", "channels"]);
    let count = |channel: &String| {
        let (_, count): (String, u64) = stores.redis().command(&["pubsub", "numsub", channel]);
        count
    };
    channels.iter().map(count).collect()
}

fn added(id: &str) -> Value {
    json!({"event": "Product Added", "event_id": id, "anonymous_id": "a1",
        "properties": {"product_id": "85123A", "quantity": 1}})
}

async fn counted(node: &Node) -> Value {
    node.get(GUEST).await["profile"]["segments"][0].clone()
}

/// The warehouse's events that this test sent; records of decisions are events as well.
async fn stored(stores: &Stores) -> Vec<String> {
    let events = "select event_id from fact_event where event_id like 'e%' order by event_id";
    stores.column(events).await
}

fn told(node: &Node, result: &str) -> u64 {
    let name = format!("cartwright_peer_events_total{{result=\"{result}\"}} ");
    let metrics = node.running().metrics.render();
    let line = metrics.lines().find_map(|line| line.strip_prefix(&name));
    line.map_or(0, |count| count.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_counts_everywhere_before_any_lane_has_run_and_once_after() {
    let (nodes, config, stores) = two_nodes().await;
    assert_eq!(nodes[0].post(&added("e1")).await, 202);
    eventually("the other shows it", async || counted(&nodes[1]).await == "one").await;

    // Sent again, to the other: it knows the id, and nobody counts it twice.
    let again = nodes[1].send(&added("e1")).await;
    assert_eq!(again["results"][0]["status"], "duplicate");
    assert_eq!(nodes[1].post(&added("e2")).await, 202);
    eventually("the first shows the second's", async || {
        counted(&nodes[0]).await == "two"
    })
    .await;
    assert_eq!(counted(&nodes[1]).await, "two");

    // The lane comes, and nothing is counted once more, whenever it is looked at.
    let worker = Node::start(&config, "drain").await;
    eventually("all is stored, and shown as it was meanwhile", async || {
        for node in &nodes {
            assert_eq!(counted(node).await, "two");
        }
        stored(&stores).await == ["e1", "e2"]
    })
    .await;
    for node in &nodes {
        assert_eq!(counted(node).await, "two");
    }
    assert_eq!(nodes[0].post(&added("e3")).await, 202);
    eventually("both show the third", async || {
        counted(&nodes[0]).await == "three" && counted(&nodes[1]).await == "three"
    })
    .await;
    worker.stop().await;
    for node in nodes {
        node.stop().await;
    }
}

/// One event, sent to two nodes at once, so that neither could know of the other's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_two_nodes_took_counts_once_for_a_third() {
    let (nodes, config, stores) = two_nodes().await;
    let third = Node::start(&config, "api").await;
    eventually("all listen", async || listeners(&stores) == [3]).await;
    for n in 0..20 {
        let id = format!("e{n}");
        let event = json!({"event": "Product Viewed", "event_id": id, "anonymous_id": format!("g{n}"),
            "properties": {"product_id": "85123A"}});
        let (first, second) = tokio::join!(nodes[0].post(&event), nodes[1].post(&event));
        assert_eq!((first, second), (202, 202));
    }
    eventually("the third heard all that was told", async || {
        let sent: u64 = nodes.iter().map(|node| told(node, "told")).sum();
        sent >= 20 && told(&third, "heard") == sent
    })
    .await;
    let all_count_once = async || {
        for node in nodes.iter().chain([&third]) {
            for n in 0..20 {
                let answer = node.get(&format!("/personalize?anonymous_id=g{n}")).await;
                assert_eq!(answer["profile"]["segments"], json!(["one"]), "{n}: {answer}");
            }
        }
    };
    all_count_once().await;
    let worker = Node::start(&config, "drain").await;
    eventually("all is stored", async || {
        all_count_once().await;
        stored(&stores).await.len() == 20
    })
    .await;
    all_count_once().await;
    worker.stop().await;
    for node in nodes.into_iter().chain([third]) {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cap_that_one_node_used_up_is_used_up_on_the_other() {
    let (nodes, _config, _stores) = two_nodes().await;
    let reason = async |node: &Node| {
        let answer = node.get(&format!("{GUEST}promo&session_id=s1")).await;
        answer["placements"]["promo"]["reason"].clone()
    };
    assert_eq!(reason(&nodes[0]).await, "targeting_match");
    eventually("the record is told", async || told(&nodes[1], "heard") == 1).await;
    assert_eq!(reason(&nodes[1]).await, "capped");
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_withdrawal_at_one_node_holds_on_the_other() {
    let (nodes, _config, _stores) = two_nodes().await;
    assert_eq!(nodes[0].post(&added("e1")).await, 202);
    eventually("the other shows it", async || counted(&nodes[1]).await == "one").await;
    let withdrawn = json!({"event": "Consent Updated", "event_id": "c1", "anonymous_id": "a1",
        "consent": {"analytics": "denied", "personalization": "denied"}});
    assert_eq!(nodes[0].post(&withdrawn).await, 202);
    eventually("the other knows", async || {
        let answer = nodes[1].get(&format!("{GUEST}promo&session_id=s1")).await;
        answer["placements"]["promo"]["reason"] == "consent"
    })
    .await;
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_is_counted_and_changes_nothing() {
    let (nodes, _config, stores) = two_nodes().await;
    let channels: Vec<String> = stores.redis().command(&["pubsub", "channels"]);
    let messages = [
        "",
        "nonsense",
        "\u{1}and more, but not enough of it",
        "\u{2}of another build",
    ];
    for message in messages {
        let heard: u64 = stores.redis().command(&["publish", &channels[0], message]);
        assert_eq!(heard, 2);
    }
    eventually("they are counted", async || {
        nodes.iter().all(|node| told(node, "unreadable") == 4)
    })
    .await;
    assert_eq!(nodes[0].post(&added("e1")).await, 202);
    eventually("the next is heard", async || counted(&nodes[1]).await == "one").await;
    for node in nodes {
        node.stop().await;
    }
}

/// Nobody waits for a Redis that takes no messages, and what it missed is shown by the lane.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_redis_is_away_events_are_taken_and_shown_by_the_lane() {
    let (nodes, config, mut stores) = two_nodes().await;
    stores.sicken(&[Server::Hot], Sickness::Killed);
    eventually("it is seen that nobody is told", async || {
        let id = format!("lost{}", uuid::Uuid::new_v4());
        let event = json!({"event": "Product Viewed", "event_id": id, "anonymous_id": "nobody",
            "properties": {"product_id": "85123A"}});
        nodes[0].post(&event).await == 202 && told(&nodes[0], "dropped") > 0
    })
    .await;
    assert_eq!(nodes[0].post(&added("e1")).await, 202);
    assert_eq!(counted(&nodes[0]).await, "one");
    let worker = Node::start(&config, "drain").await;
    eventually("the lane shows it", async || counted(&nodes[1]).await == "one").await;
    worker.stop().await;

    stores.heal(&[Server::Hot], Sickness::Killed).await;
    eventually("both listen again", async || listeners(&stores) == [2]).await;
    assert_eq!(nodes[0].post(&added("e2")).await, 202);
    eventually("the other is told", async || counted(&nodes[1]).await == "two").await;
    for node in nodes {
        node.stop().await;
    }
}

/// A node that takes no requests has nobody to show anything to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_neither_tells_nor_listens() {
    let (nodes, config, stores) = two_nodes().await;
    let worker = Node::start(&config, "drain").await;
    assert_eq!(nodes[0].post(&added("e1")).await, 202);
    eventually("it is stored", async || stored(&stores).await == ["e1"]).await;
    assert_eq!(listeners(&stores), [2]);
    assert_eq!(told(&worker, "heard"), 0);
    worker.stop().await;
    for node in nodes {
        node.stop().await;
    }
}
