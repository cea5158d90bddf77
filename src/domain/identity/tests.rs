//! Guest, login, late guest events, unlink: the same people and the same documents in every order of arrival.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::domain::ids::Timestamp;
use crate::domain::profile::{Contribution, Delta, ProfilePart};

fn id(text: &str) -> SubjectId {
    SubjectId::from_stored(text)
}

fn stamp(ms: i64, n: usize) -> Stamp {
    Stamp {
        time: Timestamp(ms),
        event_id: format!("e{n}").into(),
    }
}

/// What a log can say about identities.
#[derive(Debug, Clone)]
enum Said {
    Seen(SubjectId),
    Claimed(SubjectId, SubjectId),
    Unlinked(SubjectId, SubjectId),
    Aliased(SubjectId, SubjectId),
}

/// The views as a warehouse keeps them: pairs, aliases and parts, each joined on its own.
#[derive(Debug, Default)]
struct Views {
    links: BTreeMap<(SubjectId, SubjectId), LinkState>,
    aliases: BTreeSet<Alias>,
    parts: BTreeMap<SubjectId, ProfilePart>,
}

impl Views {
    fn of(history: &[(Stamp, Said)]) -> Views {
        let mut views = Views::default();
        for (stamp, said) in history {
            match said {
                Said::Seen(subject) => {
                    let deltas = vec![Delta::Seen];
                    let contribution = Contribution {
                        stamp: stamp.clone(),
                        deltas,
                        resets: false,
                    };
                    views
                        .parts
                        .entry(subject.clone())
                        .or_default()
                        .fold(&contribution, 0);
                }
                Said::Claimed(anonymous, user) => {
                    views.join(anonymous, user, LinkState::claimed(stamp.clone()))
                }
                Said::Unlinked(anonymous, user) => {
                    views.join(anonymous, user, LinkState::unlinked(stamp.clone()))
                }
                Said::Aliased(user, previous) => {
                    views.aliases.insert(Alias {
                        user: user.clone(),
                        previous: previous.clone(),
                    });
                }
            }
        }
        views
    }

    fn join(&mut self, anonymous: &SubjectId, user: &SubjectId, state: LinkState) {
        self.links
            .entry((anonymous.clone(), user.clone()))
            .or_default()
            .merge(&state);
    }

    fn links(&self) -> Vec<Link> {
        let link = |((anonymous, user), state): (&(SubjectId, SubjectId), &LinkState)| Link {
            anonymous: anonymous.clone(),
            user: user.clone(),
            state: state.clone(),
            proof: None,
        };
        self.links.iter().map(link).collect()
    }

    fn members(&self, user: &SubjectId) -> Vec<SubjectId> {
        let aliases: Vec<Alias> = self.aliases.iter().cloned().collect();
        members(&same_person(user, &aliases), &self.links())
    }

    fn events(&self, user: &SubjectId) -> i64 {
        let mut document = ProfilePart::default();
        for member in self.members(user) {
            document.join(self.parts.get(&member).unwrap_or(&ProfilePart::default()));
        }
        document.snapshot().events()
    }
}

fn any_history() -> impl Strategy<Value = Vec<(Stamp, Said)>> {
    let guest = || (0..3u8).prop_map(|n| id(&format!("a:{n}")));
    let user = || (0..3u8).prop_map(|n| id(&format!("u:{n}")));
    let said = prop_oneof![
        4 => prop_oneof![guest(), user()].prop_map(Said::Seen),
        3 => (guest(), user()).prop_map(|(a, u)| Said::Claimed(a, u)),
        2 => (guest(), user()).prop_map(|(a, u)| Said::Unlinked(a, u)),
        1 => (user(), user()).prop_map(|(a, b)| Said::Aliased(a, b)),
    ];
    prop::collection::vec((0i64..6, said), 0..20).prop_map(|history| {
        history
            .into_iter()
            .enumerate()
            .map(|(n, (ms, said))| (stamp(ms, n), said))
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn every_order_of_arrival_agrees(
        (history, shuffled) in any_history().prop_flat_map(|h| (Just(h.clone()), Just(h).prop_shuffle()))
    ) {
        let (a, b) = (Views::of(&history), Views::of(&shuffled));
        for user in ["u:0", "u:1", "u:2"].map(id) {
            prop_assert_eq!(a.members(&user), b.members(&user));
            prop_assert_eq!(a.events(&user), b.events(&user));
        }
    }

    #[test]
    fn linking_twice_changes_nothing(history in any_history()) {
        let twice: Vec<_> = history.iter().chain(history.iter().filter(|(_, s)| !matches!(s, Said::Seen(_)))).cloned().collect();
        let (once, twice) = (Views::of(&history), Views::of(&twice));
        for user in ["u:0", "u:1", "u:2"].map(id) {
            prop_assert_eq!(once.members(&user), twice.members(&user));
        }
    }

    #[test]
    fn an_anonymous_id_never_joins_two_people(history in any_history()) {
        let views = Views::of(&history);
        let aliases: Vec<Alias> = views.aliases.iter().cloned().collect();
        for guest in ["a:0", "a:1", "a:2"].map(id) {
            let mut owners: Vec<_> = ["u:0", "u:1", "u:2"]
                .map(id)
                .into_iter()
                .filter(|user| views.members(user).contains(&guest))
                .map(|user| same_person(&user, &aliases))
                .collect();
            owners.dedup();
            prop_assert!(owners.len() <= 1, "{owners:?}");
        }
    }
}

#[test]
fn guest_login_late_event_unlink() {
    let (guest, ann, ben) = (id("a:1"), id("u:ann"), id("u:ben"));
    let mut history = vec![
        (stamp(1, 1), Said::Seen(guest.clone())),
        (stamp(2, 2), Said::Claimed(guest.clone(), ann.clone())),
        (stamp(3, 3), Said::Claimed(guest.clone(), ben.clone())),
        (stamp(1, 4), Said::Seen(guest.clone())),
    ];
    let views = Views::of(&history);
    assert_eq!((views.events(&ann), views.events(&ben)), (2, 0));
    history.push((stamp(4, 5), Said::Unlinked(guest.clone(), ann.clone())));
    let views = Views::of(&history);
    assert_eq!((views.events(&ann), views.events(&ben)), (0, 2));
    assert_eq!(owner(&guest, &views.links()), Some(&ben));
    history.push((stamp(5, 6), Said::Claimed(guest.clone(), ann.clone())));
    assert_eq!(Views::of(&history).members(&ann), [ann.clone(), guest]);
}

#[test]
fn a_person_has_a_bounded_number_of_members() {
    let user = id("u:1");
    let links: Vec<Link> = (0..100)
        .map(|n| Link {
            anonymous: id(&format!("a:{n}")),
            user: user.clone(),
            state: LinkState::claimed(stamp(n, 0)),
            proof: Some(Proof::UserToken),
        })
        .collect();
    let members = members(std::slice::from_ref(&user), &links);
    assert_eq!(members.len(), MAX_MEMBERS);
    assert_eq!((&members[0], &members[1]), (&user, &id("a:99")));
}
