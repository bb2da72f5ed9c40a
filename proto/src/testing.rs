//! What tests, benchmarks and fuzz targets share. It is there with the feature `testing` alone, and no part of the program.

use std::net::IpAddr;
use std::time::Duration;

use crate::config::{Keepalive, KeyMode};
use crate::core::settings::LinkSettings;
use crate::crypto::suite::{Cipher, Exchange};
use crate::packet::layer::Mode;

mod dice;

pub use dice::{Dice, Given};

/// The settings of an end with static keys: of mon, which waits (0), or of fri, which calls (1). What a test is about it sets itself:
/// `LinkSettings { mtu: 1300, ..settings(0) }`.
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
