//! A bridged link that is up again tells the far side where this host's addresses are: what its hosts remember of them
//! may be out of date.

use std::fs;

use ipnet::IpNet;

use crate::packet::announce;
use crate::packet::layer::Mode;
use crate::parent::Parent;
use crate::privsep::message::ToEngine;
use crate::say;

/// Most addresses that are announced.
const MOST: usize = 64;

impl Parent {
    /// Announces the addresses of the tap device, or of the bridge that it is a port of. Those of other hosts behind the
    /// bridge stay where they were.
    pub(super) fn announce_addresses(&mut self) {
        let Some(device) = self.changes.interface() else { return };
        if self.link.config.device.mode != Mode::Tap {
            return;
        }
        match self.announcements(device.index) {
            Ok(frames) if frames.is_empty() => {}
            Ok(frames) => self.answer(&ToEngine::Announce { frames }),
            Err(error) => say!(3, "this host's addresses are not announced to the peer: {error}"),
        }
    }

    fn announcements(&mut self, device: u32) -> std::io::Result<Vec<Vec<u8>>> {
        let links = self.changes.netlink.links()?;
        let find = |index| links.iter().find(|link| link.index == index);
        let Some(port) = find(device) else { return Ok(Vec::new()) };
        // A script may have joined it to a bridge, too. A port of anything else, such as a VRF, keeps its addresses.
        let link = port.master.and_then(find).filter(|master| master.is_bridge()).unwrap_or(port);
        let Some(mac) = link.mac else { return Ok(Vec::new()) };
        let addresses = self.changes.netlink.addresses()?;
        let own = addresses.iter().filter(|address| address.interface == link.index && !address.tentative);
        let is_router = forwards(&link.name);
        let frame = |address: &IpNet| match (address, is_router) {
            // Who says no more about it than it knows harms nobody.
            (IpNet::V6(_), None) => None,
            _ => Some(announce::frame(mac, address.addr(), is_router == Some(true))),
        };
        Ok(own.filter_map(|address| frame(&address.address)).take(MOST).collect())
    }
}

/// Whether the interface forwards IPv6 packets; `None` where that cannot be told.
fn forwards(interface: &str) -> Option<bool> {
    let setting = fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{interface}/forwarding")).ok()?;
    Some(setting.trim() != "0")
}
