//! Retry tokens: whoever presents one receives at the address it calls from.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use super::{Instance, Token};
use crate::core::limits::TOKEN_EPOCH;
use crate::crypto::keys::{DirectionKey, generate};
use crate::crypto::{Random, constant_time};

/// Makes and recognises tokens without storing any.
#[cfg_attr(test, derive(Clone))]
pub struct Tokens {
    key: DirectionKey,
    started: Instant,
}

impl Tokens {
    /// Draws its own key.
    pub fn new(now: Instant, random: &mut impl Random) -> Self {
        Self { key: DirectionKey::new(generate(random)), started: now }
    }

    /// The present epoch's token for an instance that calls from this address.
    pub fn of(&self, now: Instant, instance: &Instance, from: SocketAddr) -> Token {
        let [token, _] = self.of_two_epochs(now, instance, from);
        token
    }

    /// Whether `token` is from this or the previous epoch. Timing does not reveal which, nor how close it is.
    pub fn prove(&self, now: Instant, instance: &Instance, from: SocketAddr, token: &Token) -> bool {
        constant_time::is_one_of(token, &self.of_two_epochs(now, instance, from))
    }

    fn of_two_epochs(&self, now: Instant, instance: &Instance, from: SocketAddr) -> [Token; 2] {
        let epoch = now.saturating_duration_since(self.started).as_secs() / TOKEN_EPOCH.as_secs() + 1;
        let address = match from.ip() {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        };
        [epoch, epoch - 1].map(|epoch| {
            self.key.mac(&[instance, &address, &from.port().to_be_bytes(), &epoch.to_be_bytes()])
        })
    }
}
