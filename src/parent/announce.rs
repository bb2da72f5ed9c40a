//! Where hosts are, when frames begin or cease to pass between two bridged segments: the bridge here forgets what it has learned, and the far
//! side hears where this host's addresses are.

use std::{fs, io};

use ipnet::IpNet;

use crate::packet::announce;
use crate::packet::layer::Mode;
use crate::parent::Parent;
use crate::privsep::message::ToEngine;
use crate::route::netlink::Link;

/// Most addresses that are announced.
const MOST: usize = 64;

/// A tap device, and the bridge that it is a port of.
struct Port {
    device: Link,
    /// A script may have joined it, too. A port of anything else, such as a VRF, keeps its addresses.
    bridge: Option<Link>,
}

impl Parent {
    /// Announces the addresses of the tap device, or of the bridge that it is a port of. Those of other hosts behind the
    /// bridge stay where they were.
    pub(super) fn announce_addresses(&mut self) {
        match self.announcements() {
            Ok(frames) if frames.is_empty() => {}
            Ok(frames) => self.answer(&ToEngine::Announce { frames }),
            Err(error) => log::debug!("this host's addresses are not announced to the peer: {error}"),
        }
    }

    /// A loop begins or ends (`passes`). As after a change of a spanning tree, hosts may be behind any other port (IEEE 802.1Q, section 13.29).
    pub(super) fn rerouted(&mut self, passes: bool) {
        self.forget_hosts(|parent, port| {
            port.bridge.map_or(Ok(()), |bridge| parent.changes.netlink.flush_bridge(bridge.index))
        });
        if passes {
            self.announce_addresses();
        }
    }

    /// The link is down: frames for the hosts behind it go everywhere, and so to another link between the two segments.
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
            log::debug!("the bridge keeps hosts where they were for some minutes: {error}");
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
