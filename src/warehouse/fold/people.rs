//! Links and aliases: who owns an anonymous id, and whose parts make up a document.
//!
//! What a batch must know of identities is found step by step: [`People::wanted`] names the rows to read next,
//! until nothing is missing. Of a shared device's many users only those are followed who may own it during the
//! batch, so that one kiosk doesn't pull in a town.

use std::sync::Arc;

use super::{Map, Set};
use crate::domain::identity::{Alias, Link, LinkState, members, owner, same_person};
use crate::domain::ids::{Shop, Stamp, SubjectId};
use crate::domain::transform::{Effect, IdentityClaim};

/// The identity rows to read next.
#[derive(Debug, Default)]
pub(in crate::warehouse) struct Wanted {
    /// All links of these anonymous ids.
    pub(in crate::warehouse) anonymous: Vec<SubjectId>,
    /// All links of these users, and all aliases that name one of them.
    pub(in crate::warehouse) users: Vec<SubjectId>,
}

impl Wanted {
    pub(in crate::warehouse) fn is_empty(&self) -> bool {
        self.anonymous.is_empty() && self.users.is_empty()
    }
}

#[derive(Debug, Default)]
pub(in crate::warehouse) struct People {
    shops: Map<SubjectId, Shop>,
    links: Map<(SubjectId, SubjectId), StoredLink>,
    by_anonymous: Map<SubjectId, Vec<SubjectId>>,
    by_user: Map<SubjectId, Vec<SubjectId>>,
    aliases: Map<SubjectId, Vec<SubjectId>>,
    new_aliases: Vec<Alias>,
    /// Claims of this batch, by anonymous id: the users who may come to own it.
    claimants: Map<SubjectId, Vec<SubjectId>>,
    /// Anonymous ids that this batch takes from a user: any other linked one may come to own it.
    released: Set<SubjectId>,
    read_anonymous: Set<SubjectId>,
    read_users: Set<SubjectId>,
    /// Subjects whose part or document the batch may change.
    touched: Set<SubjectId>,
    /// Members of each user's document, as of the effects folded so far.
    groups: Map<SubjectId, Arc<[SubjectId]>>,
}

/// One person's identities.
#[derive(Debug)]
pub(super) enum Person {
    /// A guest whom no user owns.
    Single(SubjectId),
    Group(Arc<[SubjectId]>),
}

impl Person {
    pub(super) fn identities(&self) -> &[SubjectId] {
        match self {
            Person::Single(subject) => std::slice::from_ref(subject),
            Person::Group(members) => members,
        }
    }
}

#[derive(Debug)]
struct StoredLink {
    link: Link,
    changed: bool,
}

impl People {
    /// Starts from what the batch names.
    pub(in crate::warehouse) fn of<'e>(effects: impl Iterator<Item = &'e Effect>) -> Self {
        let mut people = People::default();
        for effect in effects {
            let shop = &effect.event.shop;
            let order = effect.order.as_ref().and_then(|report| report.subject.as_ref());
            let refund = effect.refund.as_ref().and_then(|report| report.subject.as_ref());
            for subject in effect.subject.iter().chain(order).chain(refund) {
                people.touch(shop, subject);
            }
            match &effect.identity {
                Some(IdentityClaim::Link { anonymous, user, .. }) => {
                    people.touch(shop, anonymous);
                    people.touch(shop, user);
                    people
                        .claimants
                        .entry(anonymous.clone())
                        .or_default()
                        .push(user.clone());
                }
                Some(IdentityClaim::Unlink { anonymous, user }) => {
                    people.touch(shop, anonymous);
                    people.touch(shop, user);
                    people.released.insert(anonymous.clone());
                }
                Some(IdentityClaim::Alias { user, previous }) => {
                    people.touch(shop, user);
                    people.touch(shop, previous);
                }
                None => {}
            }
        }
        people
    }

    pub(in crate::warehouse) fn touch(&mut self, shop: &Shop, subject: &SubjectId) {
        if self.touched.insert(subject.clone()) {
            self.shops.insert(subject.clone(), shop.clone());
        }
    }

    pub(in crate::warehouse) fn add_stored_link(&mut self, shop: Shop, link: Link) {
        self.shops
            .entry(link.user.clone())
            .or_insert_with(|| shop.clone());
        self.shops.entry(link.anonymous.clone()).or_insert(shop);
        self.insert_link(link, false);
    }

    pub(in crate::warehouse) fn add_stored_alias(&mut self, shop: Shop, alias: Alias) {
        self.shops
            .entry(alias.user.clone())
            .or_insert_with(|| shop.clone());
        self.shops.entry(alias.previous.clone()).or_insert(shop);
        self.insert_alias(&alias);
    }

    fn insert_link(&mut self, link: Link, changed: bool) {
        let key = (link.anonymous.clone(), link.user.clone());
        if !self.links.contains_key(&key) {
            self.by_anonymous
                .entry(key.0.clone())
                .or_default()
                .push(key.1.clone());
            self.by_user.entry(key.1.clone()).or_default().push(key.0.clone());
            self.links.insert(key, StoredLink { link, changed });
        }
    }

    /// Whether the pair is new.
    fn insert_alias(&mut self, alias: &Alias) -> bool {
        let others = self.aliases.entry(alias.user.clone()).or_default();
        if others.contains(&alias.previous) {
            return false;
        }
        others.push(alias.previous.clone());
        self.aliases
            .entry(alias.previous.clone())
            .or_default()
            .push(alias.user.clone());
        true
    }

    /// What to read next; each key is named once. The rows come in by `add_stored_…`.
    pub(in crate::warehouse) fn wanted(&mut self) -> Wanted {
        let mut users: Set<SubjectId> = Set::default();
        let mut anonymous: Set<SubjectId> = Set::default();
        for subject in &self.touched {
            if subject.is_user() {
                users.insert(subject.clone());
                continue;
            }
            anonymous.insert(subject.clone());
            if self.released.contains(subject) {
                users.extend(self.by_anonymous.get(subject).into_iter().flatten().cloned());
            } else {
                users.extend(self.owner(subject));
            }
            users.extend(self.claimants.get(subject).into_iter().flatten().cloned());
        }
        // Whoever is one person with a user counts as that user.
        let mut open: Vec<SubjectId> = users.iter().cloned().collect();
        while let Some(user) = open.pop() {
            for other in self.aliases.get(&user).into_iter().flatten() {
                if users.insert(other.clone()) {
                    open.push(other.clone());
                }
            }
        }
        for user in &users {
            anonymous.extend(self.by_user.get(user).into_iter().flatten().cloned());
        }
        anonymous.retain(|subject| self.read_anonymous.insert(subject.clone()));
        users.retain(|subject| self.read_users.insert(subject.clone()));
        Wanted {
            anonymous: anonymous.into_iter().collect(),
            users: users.into_iter().collect(),
        }
    }

    /// The shop of a subject that was touched or read.
    pub(in crate::warehouse) fn shop(&self, subject: &SubjectId) -> Option<&Shop> {
        self.shops.get(subject)
    }

    /// The user to whom an anonymous id belongs now.
    pub(in crate::warehouse) fn owner(&self, anonymous: &SubjectId) -> Option<SubjectId> {
        let users = self.by_anonymous.get(anonymous)?;
        let links: Vec<Link> = users
            .iter()
            .filter_map(|user| self.link(anonymous, user))
            .collect();
        owner(anonymous, &links).cloned()
    }

    fn link(&self, anonymous: &SubjectId, user: &SubjectId) -> Option<Link> {
        self.links
            .get(&(anonymous.clone(), user.clone()))
            .map(|stored| stored.link.clone())
    }

    /// Every user whose document may change, with the rows read so far.
    pub(in crate::warehouse) fn users(&self) -> impl Iterator<Item = &SubjectId> {
        self.read_users.iter()
    }

    pub(in crate::warehouse) fn touched(&self) -> impl Iterator<Item = &SubjectId> {
        self.touched.iter()
    }

    /// The identities whose parts make up `user`'s document now.
    pub(in crate::warehouse) fn members(&mut self, user: &SubjectId) -> Arc<[SubjectId]> {
        if let Some(group) = self.groups.get(user) {
            return Arc::clone(group);
        }
        let group: Arc<[SubjectId]> = if self.aliases.contains_key(user) || self.by_user.contains_key(user) {
            self.compute_members(user).into()
        } else {
            Arc::new([user.clone()])
        };
        self.groups.insert(user.clone(), Arc::clone(&group));
        group
    }

    fn compute_members(&self, user: &SubjectId) -> Vec<SubjectId> {
        let mut aliases = Vec::new();
        let mut seen: Set<&SubjectId> = Set::default();
        let mut open = vec![user];
        while let Some(next) = open.pop() {
            if !seen.insert(next) {
                continue;
            }
            for other in self.aliases.get(next).into_iter().flatten() {
                aliases.push(Alias {
                    user: next.clone(),
                    previous: other.clone(),
                });
                open.push(other);
            }
        }
        let users = same_person(user, &aliases);
        let anonymous: Set<&SubjectId> = users
            .iter()
            .filter_map(|user| self.by_user.get(user))
            .flatten()
            .collect();
        let mut links = Vec::new();
        for subject in anonymous {
            let linked = self.by_anonymous.get(subject).into_iter().flatten();
            links.extend(linked.filter_map(|user| self.link(subject, user)));
        }
        members(&users, &links)
    }

    /// The identities whose parts are one person's with `subject`'s now, itself included.
    pub(super) fn person(&mut self, subject: &SubjectId) -> Person {
        let owner = if subject.is_user() {
            Some(subject.clone())
        } else {
            self.owner(subject)
        };
        match owner {
            Some(user) => Person::Group(self.members(&user)),
            None => Person::Single(subject.clone()),
        }
    }

    /// Joins a proven claim made at `stamp`.
    pub(super) fn claim(&mut self, claim: &IdentityClaim, stamp: &Stamp) {
        match claim {
            IdentityClaim::Link {
                anonymous,
                user,
                proof,
            } => {
                let state = LinkState::claimed(stamp.clone());
                let link = Link {
                    anonymous: anonymous.clone(),
                    user: user.clone(),
                    state,
                    proof: Some(*proof),
                };
                self.join(link);
            }
            IdentityClaim::Unlink { anonymous, user } => {
                let state = LinkState::unlinked(stamp.clone());
                self.join(Link {
                    anonymous: anonymous.clone(),
                    user: user.clone(),
                    state,
                    proof: None,
                });
            }
            IdentityClaim::Alias { user, previous } => {
                let alias = Alias {
                    user: user.clone(),
                    previous: previous.clone(),
                };
                if user != previous && self.insert_alias(&alias) {
                    self.new_aliases.push(alias);
                    self.groups.clear();
                }
            }
        }
    }

    fn join(&mut self, link: Link) {
        let anonymous = link.anonymous.clone();
        let before = self.owner(&anonymous);
        match self.links.get_mut(&(link.anonymous.clone(), link.user.clone())) {
            Some(stored) => {
                let mut state = stored.link.state.clone();
                state.merge(&link.state);
                if state != stored.link.state {
                    if link.proof.is_some() && state.last_claim != stored.link.state.last_claim {
                        stored.link.proof = link.proof;
                    }
                    stored.link.state = state;
                    stored.changed = true;
                }
            }
            None => self.insert_link(link, true),
        }
        if before != self.owner(&anonymous) {
            self.groups.clear();
        }
    }

    /// The links to write, by key.
    pub(in crate::warehouse) fn changed_links(&self) -> Vec<(&Shop, &Link)> {
        let changed = self.links.values().filter(|stored| stored.changed);
        let mut rows: Vec<_> = changed
            .filter_map(|stored| Some((self.shops.get(&stored.link.anonymous)?, &stored.link)))
            .collect();
        rows.sort_unstable_by_key(|(_, link)| (&link.anonymous, &link.user));
        rows
    }

    /// The aliases to write.
    pub(in crate::warehouse) fn new_aliases(&self) -> Vec<(&Shop, &Alias)> {
        self.new_aliases
            .iter()
            .filter_map(|alias| Some((self.shops.get(&alias.user)?, alias)))
            .collect()
    }
}
