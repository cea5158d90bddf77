//! Several processes on shared stores, killed one after the other under load.

use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cartwright::domain::ids::SubjectId;
use cartwright::hot;

use super::load::{Ledger, Writers, check, wait_until_applied};
use crate::support::process::Process;
use crate::support::rounds;
use crate::support::stack::{Stack, Stores};

/// A node in `role` on the stores.
fn start(stores: &Stores, role: &str) -> Process {
    let folder = stores.path().join(role);
    std::fs::create_dir_all(&folder).unwrap();
    let mut settings = vec![
        ("CARTWRIGHT_ROLES".to_owned(), role.to_owned()),
        ("CARTWRIGHT_QUEUE_PARTITIONS".to_owned(), "4".to_owned()),
        (
            "CARTWRIGHT_PUBLIC_KEY".to_owned(),
            "pk_live_process_0123456789".to_owned(),
        ),
        (
            "CARTWRIGHT_PSEUDONYM_KEY".to_owned(),
            "k1:0123456789abcdef".to_owned(),
        ),
        (
            "CARTWRIGHT_USER_TOKEN_KEY".to_owned(),
            "k1:fedcba9876543210".to_owned(),
        ),
    ];
    for (key, url) in stores.urls() {
        settings.push((
            format!("CARTWRIGHT_{}", key.replace('.', "_").to_uppercase()),
            url,
        ));
    }
    Process::start_with(&folder, "error", Stdio::null(), &settings)
}

/// Who is killed, one in each round.
#[derive(Debug, Clone, Copy)]
enum Victim {
    Api(usize),
    Worker(usize),
    Log,
    Hot,
}

const VICTIMS: [Victim; 6] = [
    Victim::Worker(0),
    Victim::Api(0),
    Victim::Log,
    Victim::Worker(1),
    Victim::Hot,
    Victim::Api(1),
];

/// A round for each victim here, twenty in `make test-long`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_killed_every_acknowledged_event_counts_once_and_hot_profiles_are_the_warehouses() {
    let mut stores = Stores::new(Stack::Networked).await;
    let mut apis = [(); 2].map(|()| Some(start(&stores, "api")));
    let mut workers = [(); 2].map(|()| Some(start(&stores, "drain")));
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    for round in 0..rounds(VICTIMS.len()) {
        let writers: Vec<_> = apis
            .iter()
            .enumerate()
            .map(|(n, api)| Writers::start(api.as_ref().unwrap().addr, 2, round * 2 + n, &ledger))
            .collect();
        tokio::time::sleep(Duration::from_millis(150 + 97 * (round as u64 % 5))).await;
        match VICTIMS[round % VICTIMS.len()] {
            Victim::Api(n) => {
                apis[n].take().unwrap().kill();
                apis[n] = Some(start(&stores, "api"));
            }
            Victim::Worker(n) => {
                workers[n].take().unwrap().kill();
                workers[n] = Some(start(&stores, "drain"));
            }
            Victim::Log => stores.log().restart(),
            Victim::Hot => stores.hot_server().restart(),
        }
        tokio::time::sleep(Duration::from_millis(150)).await;
        tokio::task::spawn_blocking(|| writers.into_iter().for_each(Writers::join))
            .await
            .unwrap();
    }
    wait_until_applied(workers[0].as_ref().unwrap());
    {
        let ledger = std::mem::take(&mut *ledger.lock().unwrap());
        assert!(
            ledger.acknowledged.len() > 100,
            "too little was acknowledged to show anything: {}",
            ledger.acknowledged.len()
        );
        check(&ledger, async |sql: &str| stores.rows(sql).await).await;
    }

    // Everything that the hot store holds is what the warehouse holds.
    let hot = hot::open(&stores.hot()).await.unwrap();
    let sql = "select subject, cast(n as text) from customer_profile";
    let mut held = 0;
    for row in stores.rows(sql).await {
        let [Some(subject), Some(n)] = &row[..] else {
            panic!("{row:?}")
        };
        let subject = SubjectId::from_stored(subject);
        let newest: u64 = n.parse().unwrap();
        let same = tokio::time::timeout(Duration::from_secs(30), async {
            loop {
                match hot.get(&subject).await {
                    Ok(None) => return 0,
                    Ok(Some(found)) if found.version.n == newest => return 1,
                    _ => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        });
        held += same.await.expect("the hot store keeps an old profile");
    }
    assert!(held > 0, "the hot store holds nothing");
    for process in apis.into_iter().chain(workers).flatten() {
        assert!(process.terminate().success());
    }
}
