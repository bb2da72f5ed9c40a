//! The routes that the peer offers, and which inner sources are its own.

use std::mem::replace;

use ipnet::IpNet;

use super::Event;
use super::outbox::Outbox;
use crate::core::lane::ReceiveCommand;
use crate::core::sources::Sources;

/// What is the peer's inside the tunnel.
#[derive(Default)]
pub struct Offers {
    /// What the peer offered last.
    offered: Vec<IpNet>,
    /// Those of them that this host has set.
    taken: Vec<IpNet>,
    /// Inner sources that are the peer's in any case, where they are limited.
    sources: Sources,
}

impl Offers {
    /// The peer offers these routes; true: that is news.
    pub fn handle_offered(&mut self, routes: Vec<IpNet>) -> bool {
        replace(&mut self.offered, routes) != self.offered
    }

    /// Whether the peer offers any.
    pub fn is_any(&self) -> bool {
        !self.offered.is_empty()
    }

    /// The owner is told what the peer offers.
    pub fn tell_offered(&self, out: &mut Outbox) {
        out.events.push_back(Event::Routes(self.offered.clone()));
    }

    /// These of them are set on this host; true: that is news.
    pub fn handle_taken(&mut self, routes: Vec<IpNet>) -> bool {
        replace(&mut self.taken, routes) != self.taken
    }

    /// These sources are the peer's in any case; true: that is news.
    pub fn handle_sources(&mut self, sources: Sources) -> bool {
        replace(&mut self.sources, sources) != self.sources
    }

    /// The lane is told which inner source addresses are the peer's: all of them, unless they are limited.
    pub fn tell_sources(&self, limited: bool, out: &mut Outbox) {
        let sources = limited.then(|| self.sources.with(&self.taken));
        out.command(ReceiveCommand::Sources(sources));
    }
}
