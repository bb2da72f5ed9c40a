use std::time::Duration;

use tund::config::Guard as Rules;
use tund::core::guard::Guard;
use tund::core::stats::DropReason;
use tund::crypto::keys::ProbeKey;

use crate::script::{Script, beginning};

/// Any frames in both directions, at any time, under any rules. Each gets a verdict, and none from a disabled rule. The
/// first bytes are the rules.
pub fn guard(data: &[u8]) {
    let mut script = Script(data);
    let flags = script.byte();
    let range = (u16::from(script.byte()), u16::from(script.byte()));
    let rules = Rules {
        find_loops: flags & 64 != 0,
        storm: u32::from(script.byte()) + 1,
        macs: u32::from(script.byte()) + 1,
        drop_bpdu: flags & 1 != 0,
        drop_dhcp_server: flags & 2 != 0,
        drop_router_advertisement: flags & 4 != 0,
        vlans: (flags & 8 != 0).then(|| vec![range]),
        untagged: flags & 16 != 0,
        drop_own_macs: flags & 32 != 0,
    };
    let off = [
        (!rules.drop_bpdu, DropReason::GuardBpdu),
        (!rules.drop_dhcp_server, DropReason::GuardDhcp),
        (!rules.drop_router_advertisement, DropReason::GuardRouter),
        (rules.vlans.is_none() && rules.untagged, DropReason::GuardVlan),
        (!rules.drop_own_macs, DropReason::GuardOwnMac),
    ];
    let mut guard = Guard::new(&rules, ProbeKey::own(&[0; 16]));
    let mut now = beginning();
    while !script.is_over() {
        let way = script.byte();
        now += Duration::from_millis(u64::from(script.byte()) << (way >> 4));
        guard.set_now(now);
        let frame = script.counted();
        let verdict = if way & 1 == 0 { guard.inward(frame) } else { guard.outward(frame) };
        assert!(off.iter().all(|(is_off, reason)| !is_off || verdict != Err(*reason)), "{verdict:?}");
        assert!(frame.len() >= 14 || verdict.is_err(), "no header");
    }
}
