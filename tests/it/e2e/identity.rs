//! With a public key nobody can read, link or shape another shopper's profile (invariant 8).

use cartwright::clock;
use cartwright::domain::ids::{Environment, Shop};
use cartwright::domain::user_token::UserTokenKey;
use serde_json::{Value, json};

use crate::support::api::{Api, PUBLIC, SERVER};
use crate::support::stack::{Stack, on_both_stacks};

on_both_stacks!(
    a_token_that_does_not_prove_the_user_reads_nothing,
    a_claimed_user_is_neither_read_nor_shaped_nor_linked,
    a_login_joins_the_guest_at_once_and_for_good,
    a_shared_device_joins_no_two_people
);

fn order(id: &str, user: &str) -> Value {
    json!({"event": "Order Completed", "event_id": id, "user_id": user, "properties": {"order_id": id,
        "currency": "GBP", "products": [{"product_id": "85123A", "price": 2.55, "quantity": 2}]}})
}

fn added(id: &str, who: Value) -> Value {
    let mut event = json!({"event": "Product Added", "event_id": id, "properties": {"product_id": "22423", "quantity": 1}});
    for (name, value) in who.as_object().unwrap() {
        event[name] = value.clone();
    }
    event
}

/// What the server key sees of a user.
async fn of_user(api: &Api, user: &str) -> Vec<String> {
    let reply = api.personalize(&format!("user_id={user}"), SERVER).await;
    reply.segments().into_iter().map(str::to_owned).collect()
}

async fn of_guest(api: &Api, guest: &str) -> Vec<String> {
    let reply = api.personalize(&format!("anonymous_id={guest}"), PUBLIC).await;
    reply.segments().into_iter().map(str::to_owned).collect()
}

async fn a_token_that_does_not_prove_the_user_reads_nothing(stack: Stack) {
    let api = Api::start(stack).await;
    api.accept(SERVER, order("o1", "victim")).await;
    api.settle().await;
    let soon = clock::now().0 / 1_000 + 600;
    let other_shop = Shop::new("other", Environment::Live).unwrap();
    let test_shop = Shop::new("demo", Environment::Test).unwrap();
    let good = api.token("victim");
    let (head, mac) = good.rsplit_once('.').unwrap();
    let flipped = format!(
        "{head}.{}{}",
        if mac.starts_with('A') { 'B' } else { 'A' },
        &mac[1..]
    );
    let forged = [
        String::new(),
        "t1".to_owned(),
        "..".to_owned(),
        format!("t1.{soon}."),
        format!("t1.{}.AAAA", u64::MAX),
        format!("t1.99999999999999999999.{mac}"),
        format!("t1.-1.{mac}"),
        flipped,
        format!("{head}.{mac}A"),
        good.replacen("t1.", "t2.", 1),
        good.replacen(&soon.to_string(), &(soon + 1).to_string(), 1),
        api.tokens.make(&api.shop, "victim", 1),
        api.tokens.make(&api.shop, "attacker", soon),
        api.tokens.make(&other_shop, "victim", soon),
        api.tokens.make(&test_shop, "victim", soon),
        UserTokenKey::new("t1", b"guess").make(&api.shop, "victim", soon),
    ];
    for token in forged {
        let reply = api
            .personalize(&format!("user_id=victim&user_token={token}"), PUBLIC)
            .await;
        let code = if token.is_empty() {
            "user_token_required"
        } else {
            "invalid_user_token"
        };
        reply.assert_problem(403, code);
        // With it, an event counts for nobody but the guest.
        let event = added(
            &format!("x{token}"),
            json!({"user_id": "victim", "user_token": token, "anonymous_id": "attacker"}),
        );
        api.post("/events", PUBLIC, &event).await;
    }
    // The token of one user says nothing of another.
    let reply = api
        .personalize(
            &format!("user_id=victim&user_token={}", api.token("attacker")),
            PUBLIC,
        )
        .await;
    reply.assert_problem(403, "invalid_user_token");
    assert_eq!(of_user(&api, "victim").await, ["buyer"]);
    api.settle().await;
    assert_eq!(of_user(&api, "victim").await, ["buyer"]);
    let proven = api
        .personalize(&format!("user_id=victim&user_token={good}"), PUBLIC)
        .await;
    assert_eq!(proven.segments(), ["buyer"]);
    api.stop().await;
}

async fn a_claimed_user_is_neither_read_nor_shaped_nor_linked(stack: Stack) {
    let api = Api::start(stack).await;
    api.accept(SERVER, order("o1", "victim")).await;
    api.accept(
        PUBLIC,
        added("e1", json!({"user_id": "victim", "anonymous_id": "attacker"})),
    )
    .await;
    for settled in [false, true] {
        assert_eq!(of_guest(&api, "attacker").await, ["filler"], "{settled}");
        assert_eq!(of_user(&api, "victim").await, ["buyer"], "{settled}");
        // Not linked: the server sees the attacker as a guest.
        let reply = api.personalize("anonymous_id=attacker", SERVER).await;
        assert_eq!(reply.segments(), ["filler"], "{settled}");
        api.settle().await;
    }
    // Nor by what comes along with a request, whose ids an event inherits.
    let ask = json!({"anonymous_id": "attacker", "user_id": "victim", "events": [{"event": "Product Added", "properties": {"product_id": "1"}}]});
    api.post("/personalize", PUBLIC, &ask)
        .await
        .assert_problem(403, "user_token_required");
    let ask = json!({"anonymous_id": "attacker", "events": [
        {"event": "Product Added", "user_id": "victim", "properties": {"product_id": "1"}}]});
    assert_eq!(api.post("/personalize", PUBLIC, &ask).await.status, 200);
    api.settle().await;
    assert_eq!(of_user(&api, "victim").await, ["buyer"]);
    // An identity event is for servers.
    for name in ["Alias", "Identity Unlinked"] {
        let event =
            json!({"event": name, "user_id": "attacker", "previous_id": "victim", "anonymous_id": "a"});
        let reply = api.post("/events", PUBLIC, &event).await;
        assert_eq!(reply.json["results"][0]["status"], "rejected", "{reply:?}");
    }
    api.stop().await;
}

async fn a_login_joins_the_guest_at_once_and_for_good(stack: Stack) {
    let mut api = Api::start(stack).await;
    api.accept(SERVER, order("o1", "jane")).await;
    api.settle().await;
    api.pause_lane().await;
    api.accept(PUBLIC, added("e1", json!({"anonymous_id": "phone"})))
        .await;
    let token = api.token("jane");
    let both = format!("user_id=jane&user_token={token}&anonymous_id=phone");
    // Proven, and not linked yet: merged for this request alone.
    assert_eq!(
        api.personalize(&both, PUBLIC).await.segments(),
        ["buyer", "filler"]
    );
    assert_eq!(of_user(&api, "jane").await, ["buyer"]);
    let login = json!({"event": "Signed In", "event_id": "e2", "user_id": "jane", "user_token": token, "anonymous_id": "phone"});
    api.accept(PUBLIC, login).await;
    api.resume_lane();
    api.settle().await;
    assert_eq!(of_user(&api, "jane").await, ["buyer", "filler"]);
    assert_eq!(
        api.personalize(&both, PUBLIC).await.segments(),
        ["buyer", "filler"]
    );
    // The server follows the link from the guest; a public key sees the guest's own part.
    assert_eq!(
        api.personalize("anonymous_id=phone", SERVER).await.segments(),
        ["buyer", "filler"]
    );
    assert_eq!(of_guest(&api, "phone").await, ["filler"]);
    // A later guest event counts for the customer, too, before and after the lane.
    api.pause_lane().await;
    let removed = json!({"event": "Product Removed", "event_id": "e3", "anonymous_id": "phone",
        "properties": {"product_id": "22423", "quantity": 1}});
    api.accept(PUBLIC, removed).await;
    assert_eq!(api.personalize(&both, PUBLIC).await.segments(), ["buyer"]);
    api.resume_lane();
    api.settle().await;
    assert_eq!(of_user(&api, "jane").await, ["buyer"]);
    api.stop().await;
}

async fn a_shared_device_joins_no_two_people(stack: Stack) {
    let mut api = Api::start(stack).await;
    api.accept(SERVER, order("o1", "jane")).await;
    let login = |id: &str, user: &str| {
        let token = api.token(user);
        json!({"event": "Signed In", "event_id": id, "user_id": user, "user_token": token, "anonymous_id": "kiosk"})
    };
    let (jane, tom) = (login("l1", "jane"), login("l2", "tom"));
    api.accept(PUBLIC, jane).await;
    api.accept(PUBLIC, added("e1", json!({"anonymous_id": "kiosk"})))
        .await;
    api.settle().await;
    api.accept(PUBLIC, tom).await;
    let token = api.token("tom");
    let as_tom = format!("user_id=tom&user_token={token}&anonymous_id=kiosk");
    for settled in [false, true] {
        // The kiosk is Jane's: Tom sees neither her orders nor the kiosk's cart.
        assert!(
            api.personalize(&as_tom, PUBLIC).await.segments().is_empty(),
            "{settled}"
        );
        assert!(of_user(&api, "tom").await.is_empty(), "{settled}");
        assert_eq!(of_user(&api, "jane").await, ["buyer", "filler"], "{settled}");
        api.settle().await;
    }
    // Before a lane knows whose the device is, Tom's own request still cannot reach Jane.
    api.pause_lane().await;
    let as_guest = of_guest(&api, "kiosk").await;
    assert_eq!(as_guest, ["filler"]);
    api.stop().await;
}
