//! Traffic between hosts, sent and measured by this process from inside them.

mod ping;
mod tcp;
mod udp;

pub use ping::{Echo, Pings, ping};
pub use tcp::{Carried, Streams, throughput};
pub use udp::{Counted, Stream, sustained};

use std::io;
use std::net::Ipv4Addr;

use crate::Host;

/// A host and the address by which it takes part.
#[derive(Clone, Copy)]
pub struct End<'a> {
    /// The host.
    pub host: &'a Host,
    /// One of its addresses.
    pub address: Ipv4Addr,
}

/// Whether nothing came in time, or this process was suspended meanwhile (signal(7)).
fn is_nothing(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), WouldBlock | TimedOut | Interrupted)
}
