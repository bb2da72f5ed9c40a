//! Reachability of hosts, when frames begin or cease to pass between two bridged segments: the local bridge forgets learned addresses, and the far
//! side is told this host's.

use std::{fs, io};

use ipnet::IpNet;

use crate::packet::announce;
use crate::packet::layer::Mode;
use crate::parent::Parent;
use crate::privsep::message::ToEngine;
use crate::route::netlink::Link;

/// Most addresses announced.
const MOST: usize = 64;

/// A tap device, and its bridge.
struct Port {
    device: Link,
    /// The bridge, which a script may have chosen. Another master, such as a VRF, keeps its addresses.
    bridge: Option<Link>,
}

impl Parent {
    /// Announces the addresses of the tap device, or of its bridge. Addresses of other hosts behind the bridge have not moved.
    pub(super) fn announce_addresses(&mut self) {
        match self.announcements() {
            Ok(frames) if frames.is_empty() => {}
            Ok(frames) => self.answer(&ToEngine::Announce { frames }),
            Err(error) => log::debug!("this host's addresses are not announced to the peer: {error}"),
        }
    }

    /// Handles the start or end of a loop (`passes`). As after a spanning tree change, hosts may be behind another port (IEEE 802.1Q, section 13.29).
    pub(super) fn rerouted(&mut self, passes: bool) {
        self.forget_hosts(|parent, port| {
            port.bridge.map_or(Ok(()), |bridge| parent.changes.netlink.flush_bridge(bridge.index))
        });
        if passes {
            self.announce_addresses();
        }
    }

    /// Flushes the port of a dead link: frames for hosts behind it are flooded, and so take another link between the segments.
    pub(super) fn forget_hosts_of_port(&mut self) {
        self.forget_hosts(|parent, port| match port.bridge {
            Some(_) => parent.changes.netlink.flush_port(port.device.index),
            None => Ok(()),
        });
    }

    fn forget_hosts(&mut self, flush: impl FnOnce(&mut Self, Port) -> io::Result<()>) {
        let flushed = match self.port() {
            Ok(Some(port)) => flush(self, port),
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = flushed {
            log::debug!("the bridge keeps stale entries for some minutes: {error}");
        }
    }

    fn port(&mut self) -> io::Result<Option<Port>> {
        let Some(device) = self.changes.interface().filter(|_| self.link.config.device.mode == Mode::Tap)
        else {
            return Ok(None);
        };
        let links = self.changes.netlink.links()?;
        let find = |index| links.iter().find(|link| link.index == index).cloned();
        let Some(device) = find(device.index) else { return Ok(None) };
        let bridge = device.master.and_then(find).filter(Link::is_bridge);
        Ok(Some(Port { device, bridge }))
    }

    fn announcements(&mut self) -> io::Result<Vec<Vec<u8>>> {
        let Some(Port { device, bridge }) = self.port()? else { return Ok(Vec::new()) };
        let link = bridge.unwrap_or(device);
        let Some(mac) = link.mac else { return Ok(Vec::new()) };
        let addresses = self.changes.netlink.addresses()?;
        let own = addresses.iter().filter(|address| address.interface == link.index && !address.tentative);
        let is_router = forwards(&link.name);
        let frame = |address: &IpNet| match (address, is_router) {
            // It is safe to announce no more than is known.
            (IpNet::V6(_), None) => None,
            _ => Some(announce::frame(mac, address.addr(), is_router == Some(true))),
        };
        Ok(own.filter_map(|address| frame(&address.address)).take(MOST).collect())
    }
}

/// Whether the interface forwards IPv6 packets; `None` if unknown.
fn forwards(interface: &str) -> Option<bool> {
    let setting = fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{interface}/forwarding")).ok()?;
    Some(setting.trim() != "0")
}
