//! Carries out loop detection's decisions.

use std::time::Instant;

use super::{Event, Link};
use crate::core::guard::Act;
use crate::core::lane::{Command, ReceiveCommand};
use crate::crypto::Random;

impl<R: Random> Link<R> {
    pub(super) fn act_on_loops(&mut self, now: Instant, acts: Vec<Act>) {
        for act in acts {
            match act {
                Act::Probe(origin, round) => self.cx.out.command(ReceiveCommand::Probe(origin, round)),
                Act::Hold(held) => self.cx.out.commands.extend(Command::hold(held)),
                Act::Say(condition) => self.say(now, condition),
                Act::Rerouted { passes } => self.cx.out.events.push_back(Event::Rerouted { passes }),
                Act::Tell(message) => {
                    if let Some(endpoint) = self.path.endpoint().filter(|_| self.is_up()) {
                        self.send(message, endpoint);
                    }
                }
            }
        }
    }
}
