//! Traffic between hosts, sent and measured by this process inside them.

mod ping;
mod tcp;
mod udp;

pub use ping::{Echo, Pings, ping};
pub use tcp::{Carried, Streams, throughput};
pub use udp::{Counted, Stream, sustained};

use std::io;
use std::net::Ipv4Addr;

use crate::Host;

/// A host and its address for a measurement.
#[derive(Clone, Copy)]
pub struct End<'a> {
    /// The host.
    pub host: &'a Host,
    /// One of its addresses.
    pub address: Ipv4Addr,
}

/// Whether nothing arrived in time, or this process was suspended (signal(7)).
fn is_nothing(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), WouldBlock | TimedOut | Interrupted)
}
