//! Changes that the server reports, on their way to whoever keeps what was read.

use std::sync::{Arc, PoisonError, RwLock};

use redis::Value;

use super::super::HotObserver;
use super::subject_of;
use crate::domain::ids::SubjectId;
use crate::redis_link::LinkObserver;

/// Who is told of changes, and whether they can be told now.
#[derive(Debug, Default)]
pub(super) struct Watch {
    observers: RwLock<Observers>,
}

#[derive(Debug, Default)]
struct Observers {
    told: Vec<Arc<dyn HotObserver>>,
    following: bool,
}

impl Watch {
    pub(super) fn add(&self, observer: Arc<dyn HotObserver>) {
        let mut observers = self.observers.write().unwrap_or_else(PoisonError::into_inner);
        if observers.following {
            observer.following();
        }
        observers.told.push(observer);
    }

    /// These subjects' values were written by this store itself.
    pub(super) fn written<'a>(&self, subjects: impl Iterator<Item = &'a SubjectId>) {
        let observers = self.observers.read().unwrap_or_else(PoisonError::into_inner);
        if observers.told.is_empty() {
            return;
        }
        for subject in subjects {
            for observer in &observers.told {
                observer.changed(subject);
            }
        }
    }

    fn set_following(&self, following: bool) {
        let mut observers = self.observers.write().unwrap_or_else(PoisonError::into_inner);
        if observers.following == following {
            return;
        }
        observers.following = following;
        for observer in &observers.told {
            match following {
                true => observer.following(),
                false => observer.lost(),
            }
        }
    }
}

impl LinkObserver for Watch {
    fn up(&self) {
        self.set_following(true);
    }

    fn down(&self) {
        self.set_following(false);
    }

    fn changed(&self, keys: Option<&[Value]>) {
        let observers = self.observers.read().unwrap_or_else(PoisonError::into_inner);
        let Some(keys) = keys else {
            for observer in &observers.told {
                observer.lost();
                if observers.following {
                    observer.following();
                }
            }
            return;
        };
        let subjects = keys.iter().filter_map(|key| match key {
            Value::BulkString(key) => subject_of(key),
            _ => None,
        });
        for subject in subjects {
            for observer in &observers.told {
                observer.changed(&subject);
            }
        }
    }
}
