//! Where a Redis is, and how it is connected to.

use std::sync::Arc;
use std::time::Duration;

use redis::cluster::ClusterClient;
use redis::io::tcp::TcpSettings;
use redis::{AsyncConnectionConfig, Client, IntoConnectionInfo as _, ProtocolVersion, PushInfo, RedisError};

use super::{CONNECT, Connection, Hook, Pushes, RESPONSE};

/// Where the server is, or some of a cluster's.
#[derive(Clone)]
#[allow(clippy::large_enum_variant, reason = "there are a few of them in a process")]
pub(crate) enum Place {
    Single(Client),
    Cluster(ClusterClient),
    /// One of them will do.
    AnyOf(Arc<[Client]>),
}

impl Place {
    /// # Errors
    /// When the URL cannot be read.
    pub(crate) fn parse(url: &str) -> Result<Place, RedisError> {
        let Some(nodes) = cluster_nodes(url) else {
            return Ok(Place::Single(server(url)?));
        };
        let client = ClusterClient::builder(nodes)
            .tcp_settings(send_at_once())
            .connection_timeout(CONNECT)
            .response_timeout(RESPONSE)
            .build()?;
        Ok(Place::Cluster(client))
    }

    /// The server, or whichever of the named nodes of a cluster can be reached, for what all nodes of one do alike: keys are not among that.
    ///
    /// # Errors
    /// When the URL cannot be read.
    pub(crate) fn any_node(url: &str) -> Result<Place, RedisError> {
        let nodes = match cluster_nodes(url) {
            Some(nodes) => nodes.iter().map(|node| server(node)).collect::<Result<_, _>>()?,
            None => Arc::from([server(url)?]),
        };
        Ok(Place::AnyOf(nodes))
    }

    /// Whether changes are reported on a connection. A cluster's client has a connection for each node, and does not say which one
    /// it lost.
    pub(crate) fn reports_changes(&self) -> bool {
        matches!(self, Place::Single(_))
    }

    /// The number of the database that is used; a cluster has but one.
    pub(crate) fn database(&self) -> i64 {
        let server = match self {
            Place::Single(server) => Some(server),
            Place::AnyOf(servers) => servers.first(),
            Place::Cluster(_) => None,
        };
        server.map_or(0, |server| server.get_connection_info().redis_settings().db())
    }

    /// Connects for the `attempt`th time. No reply takes longer than `response`, where that is given.
    pub(super) async fn connect(
        &self,
        attempt: usize,
        hook: Hook,
        response: Option<Duration>,
    ) -> Result<Connection, RedisError> {
        let client = match self {
            Place::Single(client) => client,
            Place::AnyOf(clients) => attempt
                .checked_rem(clients.len())
                .and_then(|next| clients.get(next))
                .ok_or((redis::ErrorKind::InvalidClientConfig, "no node is named"))?,
            Place::Cluster(client) => {
                return Ok(Connection::Cluster(client.get_async_connection().await?));
            }
        };
        let asks_for = hook.pushes.clone();
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout(response)
            .set_push_sender(move |push: PushInfo| -> Result<(), ()> {
                hook.receive(&push);
                Ok(())
            });
        let mut connection = client
            .get_multiplexed_async_connection_with_config(&config)
            .await?;
        match asks_for {
            Pushes::Nothing => {}
            Pushes::Changes(_) => {
                let mut track = redis::cmd("CLIENT");
                track.arg("TRACKING").arg("ON");
                let () = track.query_async(&mut connection).await?;
            }
            Pushes::Messages(channel, _) => connection.subscribe(&*channel).await?,
        }
        Ok(Connection::Single(connection))
    }
}

/// A URL for each node that a cluster's names; `None` for any other.
fn cluster_nodes(url: &str) -> Option<Vec<String>> {
    let (scheme, nodes) = url
        .split_once("-cluster://")
        .filter(|(scheme, _)| matches!(*scheme, "redis" | "rediss"))?;
    // What precedes the first node holds for all.
    let login = match nodes
        .split_once(',')
        .map_or(nodes, |(first, _)| first)
        .rsplit_once('@')
    {
        Some((login, _)) => format!("{login}@"),
        None => String::new(),
    };
    let nodes = nodes.split(',').map(|node| {
        let place = node.rsplit_once('@').map_or(node, |(_, place)| place);
        format!("{scheme}://{login}{place}")
    });
    Some(nodes.collect())
}

fn server(url: &str) -> Result<Client, RedisError> {
    let info = url.into_connection_info()?;
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    Client::open(info.set_redis_settings(settings).set_tcp_settings(send_at_once()))
}

/// Without it a command that follows another waits, with Nagle's algorithm, for the answer to that one: behind an append that is
/// synced, or up to 40 ms.
fn send_at_once() -> TcpSettings {
    TcpSettings::default().set_nodelay(true)
}
