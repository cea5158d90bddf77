//! Messages from one node to all nodes of its shop, by Redis' pub/sub.
//!
//! - At most once, and to whoever is connected at that moment: what must not be lost goes through the log.
//! - On a connection of its own. A node that reads too slowly is cut off by the server (`client-output-buffer-limit pubsub`), misses
//!   messages and is connected again; it loses nothing else with that, such as its near cache.
//! - A message comes back to its sender as well.
//! - One channel for each shop and database, `cartwright:taken:<database>:<shop>`, since pub/sub itself knows no databases.
//! - Nodes of a cluster hand on what is published on any of them, so one connection to any will do.

use std::sync::Arc;

use redis::RedisError;

use crate::domain::ids::Shop;
use crate::redis_link::{Away, Hear, Link, Place};

/// Where a shop's nodes tell each other.
#[derive(Clone)]
pub struct Channel {
    place: Place,
    name: Arc<str>,
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Channel").field(&self.name).finish()
    }
}

impl Channel {
    /// The channel of `shop` on the Redis that `url` names; `None` where it names none.
    pub fn find(url: &str, shop: &Shop) -> Option<Channel> {
        let place = Place::any_node(url).ok()?;
        let database = place.database();
        Some(Channel {
            name: format!("cartwright:taken:{database}:{shop}").into(),
            place,
        })
    }

    /// Starts to connect, from now until it is dropped. `hear` is called with every message, by whatever reads the connection: it
    /// returns at once.
    pub fn open(self, hear: Arc<Hear>) -> Broadcast {
        let Channel { place, name } = self;
        Broadcast {
            link: Link::subscribe(place, Arc::clone(&name), hear, "telling other nodes"),
            name,
        }
    }
}

/// Why nobody was told, or perhaps somebody was. Nothing has to be done: what is told here is news for milliseconds only.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    #[error(transparent)]
    Away(#[from] Away),
    #[error("{}", .0.category())]
    Redis(#[from] RedisError),
}

/// A channel while this process listens to it.
#[derive(Debug)]
pub struct Broadcast {
    link: Link,
    name: Arc<str>,
}

impl Broadcast {
    /// Sends a message to all who listen, this process too.
    ///
    /// # Errors
    /// [`SendError`], at once while the server is away.
    pub async fn send(&self, message: &[u8]) -> Result<(), SendError> {
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(&*self.name).arg(message);
        Ok(self.link.connection()?.query(&publish).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::Environment;

    #[test]
    fn a_channel_is_of_one_shop_and_one_database() {
        let name = |url, environment| {
            let shop = Shop::new("acme", environment).unwrap();
            Channel::find(url, &shop).map(|channel| channel.name.to_string())
        };
        let live = Environment::Live;
        assert_eq!(
            name("redis://localhost", live).as_deref(),
            Some("cartwright:taken:0:acme/live")
        );
        assert_eq!(
            name("redis://:secret@localhost/3", Environment::Test).as_deref(),
            Some("cartwright:taken:3:acme/test")
        );
        assert_eq!(
            name("redis-cluster://:secret@one:7000,two:7001", live).as_deref(),
            Some("cartwright:taken:0:acme/live")
        );
        for nobody in ["memory:", "redis-cluster://", "nonsense"] {
            assert_eq!(name(nobody, live), None, "{nobody}");
        }
    }
}
