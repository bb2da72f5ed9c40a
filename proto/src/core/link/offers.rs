//! The peer's offered routes and its inner sources.

use std::mem::replace;

use ipnet::IpNet;

use super::Event;
use super::outbox::Outbox;
use crate::core::lane::ReceiveCommand;
use crate::core::sources::Sources;

/// The peer's addresses inside the tunnel.
#[derive(Default)]
pub struct Offers {
    /// The peer's latest offer.
    offered: Vec<IpNet>,
    /// Offered routes set on this host.
    taken: Vec<IpNet>,
    /// Inner sources always accepted from the peer, if limited.
    sources: Sources,
}

impl Offers {
    /// Handles the peer's offer; true if it changed.
    pub fn handle_offered(&mut self, routes: Vec<IpNet>) -> bool {
        replace(&mut self.offered, routes) != self.offered
    }

    /// Whether the peer offers any route.
    pub fn is_any(&self) -> bool {
        !self.offered.is_empty()
    }

    /// Tells the owner the peer's offer.
    pub fn tell_offered(&self, out: &mut Outbox) {
        out.events.push_back(Event::Routes(self.offered.clone()));
    }

    /// Sets which of them are on this host; true if they changed.
    pub fn handle_taken(&mut self, routes: Vec<IpNet>) -> bool {
        replace(&mut self.taken, routes) != self.taken
    }

    /// Sets the sources always accepted; true if they changed.
    pub fn handle_sources(&mut self, sources: Sources) -> bool {
        replace(&mut self.sources, sources) != self.sources
    }

    /// Tells the lane the peer's inner source addresses: all, unless limited.
    pub fn tell_sources(&self, limited: bool, out: &mut Outbox) {
        let sources = limited.then(|| self.sources.with(&self.taken));
        out.command(ReceiveCommand::Sources(sources));
    }
}
