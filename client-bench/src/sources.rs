//! Where connections come from: an address has some 28,000 ports for connections to one server.

use anyhow::{Result, ensure};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Most connections from one source address. Of the 28,232 ports that are there by default connect()
/// looks at every other one first: as these 14,116 fill up it searches ever longer, and when they are
/// full it passes over all of them each time.
pub const MAX_PER_SOURCE: usize = 10_000;
/// The first address of the loopback net that connections come from, and how many there are.
const FIRST_LOOPBACK: u32 = u32::from_be_bytes([127, 0, 0, 2]);
const LOOPBACK_SOURCES: usize = 0x00FF_FFF0;

/// The plan of source addresses of one process.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// None: a loopback server is reached from 127.0.0.2, 127.0.0.3 and so on, any other from
    /// where the kernel says.
    given: Vec<IpAddr>,
    /// Connections that other processes of this machine have.
    before: usize,
}

impl Sources {
    /// Of addresses of this machine, behind `before` connections of other processes.
    pub fn new(given: Vec<IpAddr>, before: usize) -> Sources {
        Sources { given, before }
    }

    /// Where connection `index` of this process comes from; `None`: from where the kernel says.
    ///
    /// # Errors
    /// All addresses are used up.
    pub fn of(&self, server: SocketAddr, index: usize) -> Result<Option<IpAddr>> {
        let place = (self.before + index) / MAX_PER_SOURCE;
        if !self.given.is_empty() {
            ensure!(
                place < self.given.len(),
                "{} source addresses are too few: each takes {MAX_PER_SOURCE} connections",
                self.given.len()
            );
            return Ok(Some(self.given[place]));
        }
        Ok(match server.ip() {
            IpAddr::V4(address) if address.is_loopback() => {
                ensure!(place < LOOPBACK_SOURCES, "the loopback net has no more addresses");
                Some(Ipv4Addr::from(FIRST_LOOPBACK + place as u32).into())
            }
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_spread_over_the_loopback_net() {
        let server = SocketAddr::from((Ipv4Addr::LOCALHOST, 7400));
        let sources = Sources::new(Vec::new(), MAX_PER_SOURCE);
        let of = |index| sources.of(server, index).unwrap();
        assert_eq!(of(0), Some([127, 0, 0, 3].into()));
        assert_eq!(of(MAX_PER_SOURCE - 1), Some([127, 0, 0, 3].into()));
        assert_eq!(of(299 * MAX_PER_SOURCE), Some([127, 0, 1, 46].into()));
        let far = SocketAddr::from(([10, 0, 0, 1], 7400));
        assert_eq!(sources.of(far, 0).unwrap(), None);
    }

    #[test]
    fn given_addresses_are_used_in_turn_and_no_further() {
        let given: Vec<IpAddr> = vec![[10, 0, 0, 2].into(), [10, 0, 0, 3].into()];
        let sources = Sources::new(given.clone(), 5);
        let server = SocketAddr::from(([10, 0, 0, 1], 7400));
        let of = |index| sources.of(server, index);
        assert_eq!(of(MAX_PER_SOURCE - 6).unwrap(), Some(given[0]));
        assert_eq!(of(MAX_PER_SOURCE - 5).unwrap(), Some(given[1]));
        assert!(of(2 * MAX_PER_SOURCE).is_err());
    }
}
