//! Counters: traffic, and reasons for dropping datagrams and frames.

use serde::{Deserialize, Serialize};

/// Declares the reasons, each with its label in metrics.
macro_rules! drop_reasons {
    ($($(#[$doc:meta])+ $reason:ident = $label:literal,)+) => {
        /// Why a datagram or frame was dropped. Not an error: a counted outcome, and the label in metrics.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(usize)]
        pub enum DropReason {
            $($(#[$doc])+ $reason,)+
        }

        impl DropReason {
            /// All reasons, in order.
            pub const ALL: [DropReason; [$($label),+].len()] = [$(DropReason::$reason),+];

            /// The label in kebab case.
            pub fn label(self) -> &'static str {
                match self {
                    $(DropReason::$reason => $label,)+
                }
            }
        }
    };
}

drop_reasons! {
    /// Too short for one of our datagrams.
    TooShort = "too-short",
    /// No live session, and a wrong keyed check: the sender lacks the key.
    Stranger = "stranger",
    /// The tag does not verify.
    BadTag = "bad-tag",
    /// Seen before, or too far behind.
    Replayed = "replayed",
    /// Our own datagram returned.
    Reflected = "reflected",
    /// A right key, but its time must be proven first.
    Stale = "stale",
    /// More of its kind than are examined in a second.
    RateLimited = "rate-limited",
    /// A field that no sender of this version writes.
    Malformed = "malformed",
    /// Before the peer's hello matched, or a hello that does not match.
    NotAgreed = "not-agreed",
    /// A frame larger than agreed.
    TooBig = "too-big",
    /// An inner packet from a source that the peer may not use.
    Source = "source",
    /// One of the link's own datagrams, routed into the link.
    TunnelInTunnel = "tunnel-in-tunnel",
    /// Its datagram was marked for congestion, and its transport is not ECN-capable (RFC 6040).
    Congested = "congested",
    /// A part of a frame whose other parts were lost.
    Incomplete = "incomplete",
    /// A bounded queue was full.
    QueueFull = "queue-full",
    /// No session or no address to send to yet.
    NoPeer = "no-peer",
    /// More broadcasts and the like from the peer than `guard.storm` allows.
    GuardStorm = "guard-storm",
    /// A source address beyond `guard.macs`.
    GuardMacs = "guard-macs",
    /// A spanning tree frame (`guard.bpdu`).
    GuardBpdu = "guard-bpdu",
    /// A DHCP server's reply from the peer's segment (`guard.dhcp-server`).
    GuardDhcp = "guard-dhcp-server",
    /// A router advertisement from the peer's segment (`guard.router-advertisement`).
    GuardRouter = "guard-router-advertisement",
    /// In a VLAN that does not pass, or untagged (`guard.vlans`, `guard.untagged`).
    GuardVlan = "guard-vlan",
    /// A frame from the peer with an address of this segment (`guard.own-macs`).
    GuardOwnMac = "guard-own-mac",
    /// Its destination is on the side it comes from.
    GuardLocal = "guard-local",
    /// A returning probe, or a frame held back because the segments are also joined elsewhere (`guard.loop`).
    GuardLoop = "guard-loop",
}

/// Counters of a lane or the control side; summed for the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Frames read from the device and sent.
    pub frames_out: u64,
    /// Their bytes.
    pub bytes_out: u64,
    /// Frames written to the device.
    pub frames_in: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// Datagrams sent.
    pub datagrams_out: u64,
    /// Authentic datagrams received.
    pub datagrams_in: u64,
    /// Missing datagrams of the peer, as far as gaps in their counters show, including overtaken ones until they come.
    pub datagrams_lost: u64,
    drops: [u64; DropReason::ALL.len()],
}

impl Stats {
    /// Counts a drop.
    pub fn drop(&mut self, reason: DropReason) {
        self.add(reason, 1);
    }

    /// Counts several drops.
    pub fn add(&mut self, reason: DropReason, count: u64) {
        self.drops[reason as usize] += count;
    }

    /// Returns the number of drops for this reason.
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize]
    }

    /// The sum of two sets of counters.
    pub fn plus(self, other: &Self) -> Self {
        self.with(other, u64::wrapping_add)
    }

    /// Subtracts a part of the counters.
    pub fn minus(self, part: &Self) -> Self {
        self.with(part, u64::saturating_sub)
    }

    fn with(mut self, other: &Self, joins: impl Fn(u64, u64) -> u64) -> Self {
        for (mine, theirs) in [
            (&mut self.frames_out, other.frames_out),
            (&mut self.bytes_out, other.bytes_out),
            (&mut self.frames_in, other.frames_in),
            (&mut self.bytes_in, other.bytes_in),
            (&mut self.datagrams_out, other.datagrams_out),
            (&mut self.datagrams_in, other.datagrams_in),
            (&mut self.datagrams_lost, other.datagrams_lost),
        ] {
            *mine = joins(*mine, theirs);
        }
        for (mine, theirs) in self.drops.iter_mut().zip(other.drops) {
            *mine = joins(*mine, theirs);
        }
        self
    }
}

/// One line: `sent 3 frames 252 bytes in 4 datagrams, received …, lost 0 on the way, dropped replayed 2 stranger 7`.
impl std::fmt::Display for Stats {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "sent {} frames {} bytes in {} datagrams, received {} frames {} bytes in {} datagrams, lost {} on the way, dropped",
            self.frames_out,
            self.bytes_out,
            self.datagrams_out,
            self.frames_in,
            self.bytes_in,
            self.datagrams_in,
            self.datagrams_lost
        )?;
        let mut none = true;
        for reason in DropReason::ALL.into_iter().filter(|reason| self.drops(*reason) > 0) {
            none = false;
            write!(f, " {} {}", reason.label(), self.drops(reason))?;
        }
        if none { f.write_str(" none") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_counter_and_label() {
        let mut stats = Stats::default();
        for (count, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, count, "ALL is in order");
            stats.add(reason, count as u64 + 1);
        }
        let text = stats.plus(&stats).to_string();
        for (count, reason) in DropReason::ALL.into_iter().enumerate() {
            assert!(text.contains(&format!(" {} {}", reason.label(), 2 * (count + 1))), "{text}");
        }
    }
}
