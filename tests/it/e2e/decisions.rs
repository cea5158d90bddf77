//! What the warehouse keeps of decisions: segments by name, and enough to decide again.

use base64::Engine as _;
use cartwright::domain::consent::{Choice, ConsentStatement};
use cartwright::domain::decision::{Filling, ProfileState, Request, Terms, decide};
use cartwright::domain::ids::{SubjectId, Timestamp};
use cartwright::domain::profile::{Cart, CartLine, Document};
use cartwright::domain::recommend::{Excerpt, Population};
use cartwright::domain::ruleset::Ruleset;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::support::api::RULESET;
use crate::support::app::{PUBLIC_KEY, SERVER_KEY, TestApp};
use crate::support::stack::{Stack, on_both_stacks};

on_both_stacks!(every_recorded_decision_can_be_made_again_from_the_warehouse_alone);

#[derive(Deserialize)]
struct Facts {
    request: Asked,
    profile: Option<String>,
    population: Excerpt,
}

/// A request as recorded.
#[derive(Deserialize)]
struct Asked {
    user: Option<SubjectId>,
    anonymous: Option<SubjectId>,
    session: Option<String>,
    placements: Option<Vec<String>>,
    cart: Option<Vec<Line>>,
    currency: Option<String>,
    country: Option<String>,
    locale: Option<String>,
    device: Option<String>,
    consent: ConsentStatement,
}

#[derive(Deserialize)]
struct Line {
    item: String,
    quantity: i64,
    price_minor: Option<i64>,
}

impl Asked {
    fn cart(&self) -> Option<Cart<'_>> {
        let lines = self.cart.as_ref()?;
        Some(Cart {
            lines: lines
                .iter()
                .map(|line| CartLine {
                    item: &line.item,
                    quantity: line.quantity,
                    price_minor: line.price_minor,
                })
                .collect(),
            count: lines.iter().map(|line| line.quantity).sum(),
            total_minor: lines
                .iter()
                .map(|line| line.quantity * line.price_minor.unwrap_or(0))
                .sum(),
        })
    }
}

/// A placement as decided: its name, experience, variant, reason, and what it shows in order.
type Placed = (String, Option<String>, Option<String>, String, Vec<(String, f64)>);

/// Decides again from a row of `decision_record`.
fn again(facts: &str, ruleset: &Ruleset, decided_at: i64) -> Vec<Placed> {
    let facts: Facts = serde_json::from_str(facts).unwrap();
    let document = facts.profile.map(|text| {
        let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
        Document::decode(&bytes).unwrap()
    });
    let asked = &facts.request;
    let cart = asked.cart();
    let placements: Option<Vec<&str>> = asked
        .placements
        .as_ref()
        .map(|names| names.iter().map(String::as_str).collect());
    let request = Request {
        user: asked.user.as_ref(),
        anonymous: asked.anonymous.as_ref(),
        session: asked.session.as_deref(),
        placements: placements.as_deref(),
        cart: cart.as_ref(),
        currency: asked.currency.as_deref(),
        country: asked.country.as_deref(),
        locale: asked.locale.as_deref(),
        device: asked.device.as_deref(),
        candidates: &[],
        consent: asked.consent,
    };
    let terms = Terms {
        consent_default: Choice::Granted,
        record_permit: true,
        explain: false,
    };
    let profile = document.as_ref().map_or(ProfileState::Absent, |document| {
        ProfileState::Known(&document.part)
    });
    let population = Population::of_excerpt(&facts.population);
    let decision = decide(
        ruleset,
        &population,
        profile,
        &request,
        Timestamp(decided_at),
        &terms,
    );
    let rows = decision.placements.iter().map(|placement| {
        (
            placement.name.to_owned(),
            placement.experience.map(str::to_owned),
            placement.variant.map(str::to_owned),
            placement.reason.as_str().to_owned(),
            match &placement.filling {
                Filling::Content(_) => Vec::new(),
                Filling::Ranking(items) | Filling::Recommendation(items) => items
                    .iter()
                    .map(|item| (item.id.to_owned(), item.score()))
                    .collect(),
            },
        )
    });
    let mut rows: Vec<_> = rows.collect();
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    rows
}

async fn every_recorded_decision_can_be_made_again_from_the_warehouse_alone(stack: Stack) {
    let app = TestApp::on(stack)
        .await
        .ruleset(RULESET)
        .set("decisions.record", "all")
        .start()
        .await;
    // What goes together, and how it is paid.
    for n in 0..4 {
        let items =
            ["85123A", "22423", "47566"].map(|sku| json!({"product_id": sku, "price": 2.55, "quantity": 2}));
        let order = json!({"event": "Order Completed", "event_id": format!("o{n}"), "user_id": format!("u{n}"),
            "properties": {"order_id": format!("o{n}"), "currency": "GBP", "payment_method": "klarna", "products": items}});
        assert_eq!(app.post("/events", SERVER_KEY, &order).await.status, 202);
    }
    // A node that starts learns them at once.
    let stores = app.stop().await;
    let app = TestApp::with(stores)
        .ruleset(RULESET)
        .set("decisions.record", "all")
        .start()
        .await;
    let knows = tokio::time::timeout(std::time::Duration::from_secs(30), async {
        let query = "/personalize?placements=upsell&cart=85123A:1";
        while app.get(query, SERVER_KEY).await.json()["placements"]["upsell"]["reason"] != "recommended" {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    });
    knows.await.expect("the population is learned");
    let mut served = Vec::new();
    let names = "placements=payment_methods,promo,banner,upsell";
    for round in 0..4 {
        for who in ["anonymous_id=a1", "anonymous_id=a2", "user_id=u1"] {
            let query = format!(
                "/personalize?{who}&session_id=s1&{names}&cart=85123A:{}:2.55&country=GB&device=mobile",
                round + 1
            );
            let key = if who.starts_with("user") {
                SERVER_KEY
            } else {
                PUBLIC_KEY
            };
            let answer = app.get(&query, key).await;
            assert_eq!(answer.status, 200);
            served.push(answer.json());
            // A shopper clicks slower than a record is appended.
            tokio::time::sleep(std::time::Duration::from_millis(30)).await;
        }
    }
    let denied = app
        .get(
            &format!("/personalize?anonymous_id=a1&{names}&consent=personalization:denied"),
            PUBLIC_KEY,
        )
        .await;
    served.push(denied.json());
    // Records are appended a moment after their answers.
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    app.settle().await;
    let stores = app.stop().await;

    let newest = stores
        .rows("select cast(version as text), source from ruleset order by version desc limit 1")
        .await;
    let (version, source) = (newest[0][0].clone().unwrap(), newest[0][1].clone().unwrap());
    let ruleset = Ruleset::parse(&source, version.parse().unwrap()).unwrap();
    let records = stores
        .rows("select decision_id, cast(facts as text) from decision_record")
        .await;
    assert_eq!(records.len(), served.len());
    let decided_at = match stack {
        Stack::Embedded => "decided_at",
        Stack::Networked => "cast(extract(epoch from decided_at) * 1000 as bigint)",
    };
    for record in records {
        let (decision_id, facts) = (record[0].clone().unwrap(), record[1].clone().unwrap());
        let rows = stores
            .rows(&format!(
                "select placement, experience, variant, reason, cast(ruleset_version as text), cast({decided_at} as text)
                 from fact_decision where decision_id = '{decision_id}' order by placement"
            ))
            .await;
        assert!(rows.iter().all(|row| row[4].as_ref() == Some(&version)));
        let stored: Vec<_> = rows
            .iter()
            .map(|row| {
                (
                    row[0].clone().unwrap(),
                    row[1].clone(),
                    row[2].clone(),
                    row[3].clone().unwrap(),
                )
            })
            .collect();
        let decided_at = rows[0][5].as_ref().unwrap().parse().unwrap();
        let decided = again(&facts, &ruleset, decided_at);
        // And it is what the shopper saw.
        let answer = served
            .iter()
            .find(|answer| answer["decision_id"] == *decision_id)
            .unwrap();
        assert_eq!(decided.len(), stored.len());
        for (decided, (placement, experience, variant, reason)) in decided.into_iter().zip(stored) {
            let (name, made, split, why, items) = decided;
            assert_eq!(
                (&name, &made, &split, &why),
                (&placement, &experience, &variant, &reason),
                "{facts}"
            );
            let seen = &answer["placements"][&placement];
            let shown: Vec<(String, f64)> = seen["items"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|item| {
                    (
                        item["id"].as_str().unwrap().to_owned(),
                        item["score"].as_f64().unwrap(),
                    )
                })
                .collect();
            assert_eq!(items, shown, "{facts}");
            assert_eq!(seen["reason"], reason);
            assert_eq!(seen.get("experience").unwrap_or(&Value::Null), &json!(experience));
            assert_eq!(seen.get("variant").unwrap_or(&Value::Null), &json!(variant));
        }
    }
    let reasons = stores
        .column("select distinct reason from fact_decision where placement = 'banner' order by reason")
        .await;
    assert_eq!(reasons, ["capped", "consent", "targeting_match"]);
    let segments = stores
        .column("select segment from customer_segment order by segment")
        .await;
    assert_eq!(segments, ["buyer"; 4]);
}
