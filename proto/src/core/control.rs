//! A link's interface to its owner, whatever its wire format: events in, commands and events out.

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
/// both are empty, and [`Control::handle_timeout`] at [`Control::poll_timeout`].
pub trait Control {
    /// Counters of this side.
    fn stats(&self) -> Stats;
    /// The next command for the lane.
    fn poll_command(&mut self) -> Option<Command>;
    /// The next event for the owner.
    fn poll_event(&mut self) -> Option<Event>;
    /// When the peer was last heard; before that, the start of the link.
    fn heard_at(&self) -> Instant;
    /// When the link came up or frames last passed; before that, when it began.
    fn used_at(&self) -> Instant;
    /// Handles a notice from the lane.
    fn handle_notice(&mut self, now: Now, notice: Notice);
    /// [`Event::Keep`]'s data is on disk.
    fn handle_kept(&mut self, _now: Now, _kept: Kept) {}
    /// The remotes' addresses known so far.
    fn handle_resolved(&mut self, now: Now, addresses: &[Path]);
    /// The kernel's route to an endpoint.
    fn handle_route(&mut self, now: Now, address: SocketAddr, mtu: Option<u32>);
    /// The lane's report, about once a second.
    fn handle_report(&mut self, now: Now, report: &Report);
    /// The host slept, its clock was set, or a snapshot of it was restored.
    fn handle_resumed(&mut self, now: Now);
    /// This end stops; `idle`: since nothing passed.
    fn handle_stop(&mut self, idle: bool);
    /// Changes the settings.
    fn handle_settings(&mut self, now: Now, settings: LinkSettings);
    /// The peer's inner source addresses.
    fn handle_sources(&mut self, sources: Sources);
    /// The peer's routes that are set on this host.
    fn handle_taken(&mut self, _routes: Vec<IpNet>) {}
    /// Makes new traffic keys now, or what is nearest to that.
    fn handle_rekey(&mut self, now: Now);
    /// Restarts the link.
    fn handle_reconnect(&mut self, now: Now);
    /// The link's state; `lanes` has its lanes' counters.
    fn state(&self, now: Instant, lanes: &Stats) -> LinkState;
    /// When [`Control::handle_timeout`] must next be called, if at all.
    fn poll_timeout(&self) -> Option<Instant>;
    /// Does what is due.
    fn handle_timeout(&mut self, now: Now);
}
