//! What a link is to its owner, whatever it speaks on the wire: events in, commands and events out.

use std::net::SocketAddr;
use std::time::Instant;

use ipnet::IpNet;

use super::bulk::Command;
use super::clock::Now;
use super::lane::{Notice, Report};
use super::link::Event;
use super::openvpn::admission::Kept;
use super::path::Path;
use super::settings::{LinkSettings, LinkState};
use super::sources::Sources;
use super::stats::Stats;

/// The control side of one link. After each `handle_*` the owner calls [`Control::poll_command`] and [`Control::poll_event`] until
/// both are empty, and [`Control::handle_timeout`] no later than [`Control::poll_timeout`] says.
pub trait Control {
    /// What this side counted.
    fn stats(&self) -> Stats;
    /// The next command for the lane.
    fn poll_command(&mut self) -> Option<Command>;
    /// The next event for the owner.
    fn poll_event(&mut self) -> Option<Event>;
    /// When the peer was last heard; before that, the start of the link.
    fn heard_at(&self) -> Instant;
    /// When the link came up or frames last passed; before that, when it began.
    fn used_at(&self) -> Instant;
    /// Takes what the lane noticed.
    fn handle_notice(&mut self, now: Now, notice: Notice);
    /// What was asked for by [`Event::Keep`] is on disk.
    fn handle_kept(&mut self, _now: Now, _kept: Kept) {}
    /// The addresses of the remotes that are known so far.
    fn handle_resolved(&mut self, now: Now, addresses: &[Path]);
    /// What the kernel's routing says about an endpoint.
    fn handle_route(&mut self, now: Now, address: SocketAddr, mtu: Option<u32>);
    /// What the lane told, about once a second.
    fn handle_report(&mut self, now: Now, report: &Report);
    /// The host slept, its clock was set, or a snapshot of it was restored.
    fn handle_resumed(&mut self, now: Now);
    /// This end stops; `idle`: because nothing passed.
    fn handle_stop(&mut self, idle: bool);
    /// Goes on with other settings.
    fn handle_settings(&mut self, now: Now, settings: LinkSettings);
    /// Inner sources that are the peer's.
    fn handle_sources(&mut self, sources: Sources);
    /// These of the peer's routes are set on this host.
    fn handle_taken(&mut self, _routes: Vec<IpNet>) {}
    /// New traffic keys now, or what comes next to them.
    fn handle_rekey(&mut self, now: Now);
    /// Begins anew.
    fn handle_reconnect(&mut self, now: Now);
    /// How the link is; `lanes` is what its lanes counted.
    fn state(&self, now: Instant, lanes: &Stats) -> LinkState;
    /// When [`Control::handle_timeout`] must be called next, if at all.
    fn poll_timeout(&self) -> Option<Instant>;
    /// Does what is due.
    fn handle_timeout(&mut self, now: Now);
}
