use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::draft::Draft;
use super::overlay::{Overlay, OverlayLimits};
use super::read::Read;
use crate::domain::consent::{Choice, ConsentStatement};
use crate::domain::event::{Event, Source};
use crate::domain::ids::{Environment, PseudonymKey, Shop, SubjectId, Timestamp};
use crate::domain::profile::{AsOf, Document, Snapshot};
use crate::telemetry::ReadSource;

fn shop() -> Shop {
    Shop::new("acme", Environment::Live).unwrap()
}

fn guest(name: &str) -> SubjectId {
    PseudonymKey::new("k1", b"secret").anonymous(&shop(), name)
}

fn added(id: u64, who: &SubjectId) -> Event {
    Event {
        shop: shop(),
        source: Source::Public,
        event_id: id.to_string().into(),
        name: "Product Added".into(),
        anonymous: Some(who.clone()),
        user: None,
        claimed_user: None,
        session: None,
        event_time: Timestamp(1_000_000 + i64::try_from(id).unwrap()),
        received_at: Timestamp(2_000_000),
        consent: ConsentStatement::default(),
        quarantine: None,
        body: Bytes::from_static(br#"{"properties":{"product_id":"85123A","quantity":1}}"#),
    }
}

fn draft(stored: Option<Document>) -> Draft {
    let read = stored.map(|document| Read::of(Arc::new(Snapshot::of(&document)), ReadSource::Hot));
    Draft::from(read.unwrap_or(Read::NOBODY))
}

fn folded(overlay: &Overlay, who: &SubjectId, stored: Option<Document>) -> Option<Arc<Snapshot>> {
    let mut draft = draft(stored);
    overlay.fold(who, &mut draft, true, &AsOf::default());
    draft.finish().profile
}

fn count(profile: Option<&Arc<Snapshot>>) -> i64 {
    profile.map_or(0, |profile| profile.cart().count)
}

fn stored_up_to(next: u64) -> Document {
    let mut document = Document::default();
    document.as_of.advance(0, next);
    document
}

#[test]
fn events_are_folded_until_a_stored_profile_covers_them() {
    let (overlay, who) = (Overlay::new(OverlayLimits::default()), guest("a"));
    for offset in 0..4 {
        overlay.add(0, offset, added(offset, &who));
    }
    assert_eq!(count(folded(&overlay, &who, None).as_ref()), 4);
    assert_eq!(count(folded(&overlay, &who, Some(stored_up_to(3))).as_ref()), 1);
    // What was covered is gone for good, what was not stays.
    assert_eq!(count(folded(&overlay, &who, None).as_ref()), 1);
    assert_eq!(count(folded(&overlay, &who, Some(stored_up_to(4))).as_ref()), 0);
    assert_eq!(folded(&overlay, &who, None), None);
    assert_eq!(folded(&overlay, &guest("b"), None), None);
}

#[test]
fn another_identitys_document_covers_and_lets_nothing_go() {
    let (overlay, who) = (Overlay::new(OverlayLimits::default()), guest("a"));
    overlay.add(0, 7, added(7, &who));
    let mut customers = draft(Some(stored_up_to(8)));
    assert!(!overlay.fold(&who, &mut customers, false, &AsOf::default()));
    assert_eq!(count(folded(&overlay, &who, None).as_ref()), 1);
}

#[test]
fn what_the_lane_passed_counts_no_more_although_no_profile_covers_it() {
    let (overlay, who) = (Overlay::new(OverlayLimits::default()), guest("a"));
    // Sent before, by another node or before a restart: the lane drops it, and writes no document.
    overlay.add(0, 7, added(1, &who));
    let before = overlay.passed();
    overlay.lane_passed(0, 8);
    let fold = |passed: &AsOf| {
        let mut draft = draft(Some(stored_up_to(3)));
        overlay.fold(&who, &mut draft, true, passed);
        count(draft.finish().profile.as_ref())
    };
    // A read that began before may have found the stores of before.
    assert_eq!(fold(&before), 1);
    assert_eq!(fold(&overlay.passed()), 0);
}

#[test]
fn an_id_taken_twice_at_once_counts_once() {
    let (overlay, who) = (Overlay::new(OverlayLimits::default()), guest("a"));
    overlay.add(0, 0, added(1, &who));
    let once = overlay.size_bytes();
    overlay.add(0, 1, added(1, &who));
    assert_eq!(count(folded(&overlay, &who, None).as_ref()), 1);
    assert_eq!(overlay.size_bytes(), once);
}

/// Two nodes took it, and word of the second came first. A profile that covers the first holds it.
#[test]
fn of_two_places_of_an_event_the_first_counts_in_whichever_order_they_are_known() {
    let who = guest("a");
    let own_last = |overlay: &Overlay| overlay.add(0, 3, added(1, &who));
    let heard_last = |overlay: &Overlay| overlay.note_place(0, 3, &added(1, &who));
    for known_last in [&own_last as &dyn Fn(&Overlay), &heard_last] {
        let overlay = Overlay::new(OverlayLimits::default());
        overlay.add_heard(0, 7, added(1, &who));
        known_last(&overlay);
        let once = overlay.size_bytes();
        assert_eq!(count(folded(&overlay, &who, None).as_ref()), 1);
        overlay.note_place(0, 9, &added(1, &who));
        assert_eq!(overlay.size_bytes(), once);
        assert_eq!(count(folded(&overlay, &who, Some(stored_up_to(4))).as_ref()), 0);
        assert_eq!(overlay.size_bytes(), 0);
        // It is not kept any more, so there is nothing to note.
        overlay.note_place(0, 7, &added(1, &who));
        assert_eq!(overlay.size_bytes(), 0);
    }
    // The lane had passed the first already.
    let overlay = Overlay::new(OverlayLimits::default());
    overlay.add_heard(0, 7, added(1, &who));
    overlay.lane_passed(0, 4);
    overlay.add(0, 3, added(1, &who));
    let mut draft = draft(None);
    assert!(!overlay.fold(&who, &mut draft, true, &overlay.passed()));
}

#[test]
fn what_is_heard_has_its_own_bound() {
    let limits = OverlayLimits {
        max_bytes: 1 << 20,
        ..OverlayLimits::default()
    };
    let overlay = Overlay::new(limits);
    let own = guest("own");
    overlay.add(0, 0, added(0, &own));
    for offset in 1..20_000u64 {
        overlay.add_heard(0, offset, added(offset, &guest(&offset.to_string())));
    }
    assert!(overlay.size_bytes() <= limits.max_bytes + limits.max_bytes / 16);
    assert_eq!(count(folded(&overlay, &own, None).as_ref()), 1);
    assert_eq!(count(folded(&overlay, &guest("19999"), None).as_ref()), 1);
    assert_eq!(folded(&overlay, &guest("1"), None), None);
    overlay.lane_passed(0, 20_000);
    overlay.forget(&overlay.passed());
    assert_eq!(overlay.size_bytes(), 0);
}

#[test]
fn a_withdrawal_that_is_heard_late_holds_for_what_came_after_it() {
    let (overlay, who) = (Overlay::new(OverlayLimits::default()), guest("a"));
    let mut denied = added(1, &who);
    denied.consent.analytics = Some(Choice::Denied);
    overlay.add(0, 8, added(2, &who));
    overlay.add_heard(0, 7, denied);
    assert_eq!(count(folded(&overlay, &who, None).as_ref()), 0);
}

#[test]
fn the_overlay_stays_within_its_bounds_and_keeps_the_newest() {
    let limits = OverlayLimits {
        max_bytes: 1 << 20,
        max_events_per_subject: 8,
        ..OverlayLimits::default()
    };
    let overlay = Overlay::new(limits);
    let busy = guest("busy");
    for offset in 0..100 {
        overlay.add(0, offset, added(offset, &busy));
    }
    assert_eq!(count(folded(&overlay, &busy, None).as_ref()), 8);
    for offset in 100..20_000u64 {
        overlay.add(0, offset, added(offset, &guest(&offset.to_string())));
    }
    assert!(
        overlay.size_bytes() <= limits.max_bytes,
        "{}",
        overlay.size_bytes()
    );
    assert_eq!(folded(&overlay, &busy, None), None);
    assert_eq!(count(folded(&overlay, &guest("19999"), None).as_ref()), 1);
}

#[test]
fn old_events_are_let_go() {
    let limits = OverlayLimits {
        max_age: Duration::ZERO,
        ..OverlayLimits::default()
    };
    let (overlay, who) = (Overlay::new(limits), guest("a"));
    overlay.add(0, 0, added(0, &who));
    assert_eq!(folded(&overlay, &who, None), None);
    assert_eq!(overlay.size_bytes(), 0);
}

#[test]
fn what_lanes_have_passed_is_forgotten_although_its_shopper_never_comes_back() {
    let overlay = Overlay::new(OverlayLimits::default());
    for offset in 0..10_000u64 {
        overlay.add(0, offset, added(offset, &guest(&(offset % 1_000).to_string())));
    }
    let full = overlay.size_bytes();
    overlay.lane_passed(0, 9_000);
    overlay.forget(&overlay.passed());
    assert!(
        overlay.size_bytes() * 9 <= full,
        "{} of {full}",
        overlay.size_bytes()
    );
    assert_eq!(count(folded(&overlay, &guest("7"), None).as_ref()), 1);
    overlay.lane_passed(0, 10_000);
    overlay.forget(&overlay.passed());
    assert_eq!(overlay.size_bytes(), 0);
    assert_eq!(folded(&overlay, &guest("7"), None), None);
}

#[test]
fn what_may_not_be_folded_is_not() {
    let (overlay, who) = (Overlay::new(OverlayLimits::default()), guest("a"));
    let denied = ConsentStatement {
        analytics: Some(Choice::Denied),
        personalization: None,
    };
    overlay.add(
        0,
        0,
        Event {
            consent: denied,
            ..added(0, &who)
        },
    );
    // Said nothing, but the profile remembers.
    overlay.add(0, 1, added(1, &who));
    overlay.add(
        0,
        2,
        Event {
            quarantine: Some(Arc::from("invalid_price")),
            ..added(2, &who)
        },
    );
    let document = folded(&overlay, &who, None);
    assert_eq!(count(document.as_ref()), 0);
    assert!(!document.unwrap().analytics_allowed(Choice::Granted));
}

#[test]
fn a_damaged_profile_counts_as_not_read_once_something_is_folded_into_it() {
    let (overlay, who) = (Overlay::new(OverlayLimits::default()), guest("a"));
    let mut bytes = stored_up_to(3).encode();
    // The count of the last section.
    *bytes.last_mut().unwrap() = 9;
    let damaged = || {
        let profile = Snapshot::read(bytes.clone().into()).unwrap();
        Draft::from(Read::of(Arc::new(profile), ReadSource::Hot))
    };
    assert!(!damaged().finish().incomplete);
    overlay.add(0, 7, added(7, &who));
    let mut draft = damaged();
    assert!(overlay.fold(&who, &mut draft, true, &AsOf::default()));
    let read = draft.finish();
    assert!(read.incomplete);
    assert_eq!(count(read.profile.as_ref()), 1);
}

#[test]
fn what_a_damaged_profile_says_of_consent_holds() {
    let (overlay, who) = (Overlay::new(OverlayLimits::default()), guest("a"));
    let denied = Event {
        quarantine: Some("quota".into()),
        consent: ConsentStatement {
            analytics: Some(Choice::Denied),
            personalization: None,
        },
        ..added(1, &who)
    };
    overlay.add(0, 1, denied);
    let mut draft = draft(None);
    assert!(overlay.fold(&who, &mut draft, true, &AsOf::default()));
    let mut bytes = draft.finish().profile.unwrap().bytes().to_vec();
    // The count of the last section.
    *bytes.last_mut().unwrap() = 9;

    let overlay = Overlay::new(OverlayLimits::default());
    overlay.add(0, 7, added(7, &who));
    overlay.add(0, 8, added(8, &who));
    let damaged = Snapshot::read(bytes.into()).unwrap();
    let mut draft = Draft::from(Read::of(Arc::new(damaged), ReadSource::Hot));
    overlay.fold(&who, &mut draft, true, &AsOf::default());
    draft.part();
    let read = draft.finish();
    assert!(read.incomplete);
    let profile = read.profile.unwrap();
    assert!(!profile.analytics_allowed(Choice::Granted));
    assert_eq!(profile.cart().count, 0);
}

#[test]
fn joined_profiles_are_encoded_once_for_both() {
    let (overlay, user, who) = (Overlay::new(OverlayLimits::default()), guest("u"), guest("a"));
    let read = |subject: &SubjectId, stored: Option<Document>| {
        let mut draft = draft(stored);
        overlay.fold(subject, &mut draft, true, &AsOf::default());
        draft
    };
    let stored = || Some(stored_up_to(3));
    let unchanged = |joined: Draft, of: Option<Document>| {
        let is_same = joined.finish().profile.as_deref().map(Snapshot::bytes)
            == of
                .map(|document| Snapshot::of(&document))
                .as_ref()
                .map(Snapshot::bytes);
        assert!(is_same);
    };
    unchanged(read(&user, stored()).join(read(&who, None)), stored());
    unchanged(read(&user, None).join(read(&who, stored())), stored());
    unchanged(read(&user, None).join(read(&who, None)), None);
    overlay.add(0, 7, added(7, &user));
    overlay.add(0, 8, added(8, &who));
    for (of_user, of_guest) in [
        (stored(), stored()),
        (None, stored()),
        (stored(), None),
        (None, None),
    ] {
        let joined = read(&user, of_user).join(read(&who, of_guest)).finish();
        assert_eq!(count(joined.profile.as_ref()), 2);
        assert!(!joined.incomplete);
    }
}
