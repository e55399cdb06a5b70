//! Networks as an app names them, and what is known of each.

use std::fmt;

/// Most networks of which something is kept; the one that was learnt of longest ago goes first.
pub const MAX_NETWORKS: usize = 16;
/// Most bytes of a network's name.
pub const MAX_NETWORK_NAME_BYTES: usize = 64;

/// The network that a device is on, under a name of the app's: `wifi`, `cellular`, or as much as
/// it wants to tell apart. The name stays in the local store; no server hears it. The default,
/// with an empty name, is what an app is on that names none.
///
/// ```
/// use starling_client::{Network, NetworkError};
///
/// let network = Network::named("cellular")?;
/// assert_eq!(network.name(), "cellular");
/// assert_eq!(Network::default(), Network::named("")?);
/// assert_eq!(Network::named(&"x".repeat(65)), Err(NetworkError { bytes: 65 }));
/// # Ok::<(), NetworkError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network(String);

/// The name of a network is longer than [`MAX_NETWORK_NAME_BYTES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the name of a network has {bytes} bytes; the most is {MAX_NETWORK_NAME_BYTES}")]
pub struct NetworkError {
    pub bytes: usize,
}

impl Network {
    /// # Errors
    /// [`NetworkError`] if the name has more than [`MAX_NETWORK_NAME_BYTES`].
    pub fn named(name: &str) -> Result<Network, NetworkError> {
        match name.len() {
            0..=MAX_NETWORK_NAME_BYTES => Ok(Network(name.to_owned())),
            bytes => Err(NetworkError { bytes }),
        }
    }

    pub fn name(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What was learnt of a network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownNetwork {
    pub network: Network,
    /// The longest heartbeat that links over it are believed to bear, in seconds; 0: not known.
    pub heartbeat_s: u32,
    pub too_long: Option<TooLong>,
}

/// A heartbeat at which links died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong {
    pub heartbeat_s: u32,
    /// When one last did: server time, Unix milliseconds.
    pub at_ms: u64,
}

impl KnownNetwork {
    /// Keeps what is known of one network among what is known of others, at the end.
    pub(crate) fn keep(self, others: &mut Vec<KnownNetwork>) {
        others.retain(|known| known.network != self.network);
        others.push(self);
        if others.len() > MAX_NETWORKS {
            others.remove(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_network_learnt_of_longest_ago_makes_room() {
        let mut networks = Vec::new();
        let mut learn = |number: usize, heartbeat_s| {
            let network = Network(number.to_string());
            KnownNetwork { network, heartbeat_s, too_long: None }.keep(&mut networks);
        };
        (0..MAX_NETWORKS).for_each(|number| learn(number, 30));
        learn(0, 60);
        learn(MAX_NETWORKS, 30);
        assert_eq!(networks.len(), MAX_NETWORKS);
        let of = |number: usize| {
            networks.iter().find(|known| known.network.name() == number.to_string())
        };
        assert_eq!(of(0).map(|known| known.heartbeat_s), Some(60));
        assert_eq!(of(1), None);
        assert!(of(MAX_NETWORKS).is_some());
    }
}
