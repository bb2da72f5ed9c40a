//! The `[guard]` table.

use super::Guard;
use super::code::Code;
use super::diagnostic::{Findings, quote};
use super::keys::{RawGuard, Verdict};
use super::reader::At;
use super::schema::Declared;
use crate::packet::layer::Mode;

/// The highest VLAN ID (IEEE 802.1Q, table 9-2).
const LAST_VLAN: u16 = 4094;

/// `mode`: the device's, if known.
pub(super) fn check_guard(raw: &RawGuard, mode: Option<Mode>, out: &mut Findings) -> Guard {
    if let (Some(place), Some(Mode::Tun)) = (raw.place(), mode) {
        let message = "[guard] has no effect: a tun device carries IP packets, not bridged frames";
        let help = "remove it, or set device.mode = \"tap\" for a bridged link";
        out.warning(Code::TapOnly, Some(place), message, help);
    }
    let vlans =
        raw.vlans.value().map(|vlans| vlans.iter().filter_map(|vlan| check_vlans(vlan, out)).collect());
    Guard {
        find_loops: raw.find_loops(),
        storm: raw.storm(),
        macs: raw.macs(),
        drop_bpdu: raw.bpdu() == Verdict::Drop,
        drop_dhcp_server: raw.dhcp_server() == Verdict::Drop,
        drop_router_advertisement: raw.router_advertisement() == Verdict::Drop,
        vlans,
        untagged: raw.untagged(),
        drop_own_macs: raw.own_macs() == Verdict::Drop,
    }
}

/// Parses `100` or `200-209`.
fn check_vlans(text: &At<String>, out: &mut Findings) -> Option<(u16, u16)> {
    let number = |text: &str| text.trim().parse().ok().filter(|vlan| (1..=LAST_VLAN).contains(vlan));
    let (first, last) = text.value.split_once('-').unwrap_or((&text.value, &text.value));
    let range = number(first).zip(number(last)).filter(|(first, last)| first <= last);
    if range.is_none() {
        let message = format!("guard.vlans cannot contain {}", quote(&text.value));
        let help = "expected a VLAN number from 1 to 4094, or a range such as \"200-209\"";
        out.error(Code::BadVlan, text.at(), message, help);
    }
    range
}
