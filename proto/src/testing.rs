//! Shared by tests, benchmarks and fuzz targets. Only the feature `testing` enables it; no program does.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{Keepalive, KeyMode};
use crate::core::clock::Now;
use crate::core::lane::{self, Notice, Sink};
use crate::core::link::Link;
use crate::core::path::Path;
use crate::core::settings::LinkSettings;
use crate::crypto::keys::LinkKeys;
use crate::crypto::noise::Statics;
use crate::crypto::suite::{Cipher, Exchange};
use crate::packet::layer::Mode;

mod dice;
#[cfg(test)]
pub(crate) mod sample;

pub use dice::{Dice, Given};

/// Settings of an end with static keys: mon, which waits (0), or fri, which calls (1). A test overrides what it is
/// about: `LinkSettings { mtu: 1300, ..settings(0) }`.
pub fn settings(which: usize) -> LinkSettings {
    let inner: [IpAddr; 2] = [[192, 168, 86, 18].into(), [192, 168, 86, 81].into()];
    LinkSettings {
        name: ["mon", "fri"][which].into(),
        mode: Mode::Tun,
        mtu: 1400,
        addresses: vec![inner[which]],
        peers: vec![inner[1 - which]],
        key_mode: KeyMode::Static,
        openvpn: None,
        cipher: Cipher::ChaCha20Poly1305,
        direction: which as u8,
        suites: vec![Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305],
        exchange: Exchange::Hybrid,
        has_remote: which == 1,
        float: true,
        keepalive: Keepalive {
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(60),
            idle_exit: Duration::from_secs(300),
        },
        bundle: true,
        mss_clamp: true,
        push: Vec::new(),
        only_routed: false,
        guard: None,
        lanes: 1,
        path_mtu: None,
        verb: 3,
        activated: false,
    }
}

/// Makes a link with these settings and its lanes' settings; both share keys derived from `secret`.
pub fn link(
    settings: LinkSettings,
    secret: &[u8; 32],
    statics: Statics,
    now: Now,
    random: Dice,
) -> (Link<Dice>, lane::Settings) {
    let keys = Arc::new(LinkKeys::new(secret));
    let lane = lane::Settings::new(&settings, keys.clone(), false);
    (Link::new(settings, keys, statics, now, random), lane)
}

/// Records what a lane emits, each kind in order.
#[derive(Debug, Default)]
pub struct Recorder {
    /// For the device.
    pub frames: Vec<Vec<u8>>,
    /// For the network, each with its path.
    pub sent: Vec<(Vec<u8>, Path)>,
    /// For the link.
    pub notices: VecDeque<Notice>,
    /// Most notices that may wait before one is refused; `None`: no limit.
    pub room: Option<usize>,
    /// Confirmations still to be refused anyway.
    pub refused: u32,
    /// Number of lanes of this end. What belongs to another of them goes to `strays`.
    pub lanes: u8,
    /// Lane number, datagram and the path it came by.
    pub strays: Vec<(u8, Vec<u8>, Path)>,
}

impl Sink for Recorder {
    fn frame(&mut self, frame: &[u8]) {
        self.frames.push(frame.to_vec());
    }

    fn datagram(&mut self, datagram: &[u8], to: Path) {
        self.sent.push((datagram.to_vec(), to));
    }

    fn stray(&mut self, lane: u8, datagram: &[u8], from: Path, _ecn: u8) -> bool {
        let there = lane < self.lanes;
        if there {
            self.strays.push((lane, datagram.to_vec(), from));
        }
        there
    }

    fn notice(&mut self, notice: Notice) -> bool {
        let refuses = self.refused > 0 && matches!(notice, Notice::Confirmed { .. });
        self.refused -= u32::from(refuses);
        let takes = !refuses && self.room.is_none_or(|room| self.notices.len() < room);
        self.notices.extend(takes.then_some(notice));
        takes
    }
}
