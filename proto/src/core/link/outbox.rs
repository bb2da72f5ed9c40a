//! Context shared by a link's parts: randomness and outputs. A link in OpenVPN's format has such outputs too.

use std::collections::VecDeque;

use super::Event;
use crate::core::condition::Condition;
use crate::core::lane::{Command, KeySlot, SendCommand};
use crate::core::path::Path;
use crate::wire::control::{self, Message};

/// Randomness and outputs.
pub struct Context<R> {
    /// Randomness.
    pub random: R,
    /// Outputs of the link.
    pub out: Outbox,
}

/// Commands and events not yet fetched.
pub struct Outbox<C = Command> {
    /// For the lanes.
    pub commands: VecDeque<C>,
    /// For the owner.
    pub events: VecDeque<Event>,
}

impl<C> Default for Outbox<C> {
    fn default() -> Self {
        Self { commands: VecDeque::new(), events: VecDeque::new() }
    }
}

impl<C> Outbox<C> {
    /// For a lane.
    pub fn command(&mut self, command: impl Into<C>) {
        self.commands.push_back(command.into());
    }

    /// Adds a log line.
    pub fn log(&mut self, condition: Condition) {
        self.events.push_back(Event::Log { level: condition.level(), condition });
    }
}

impl Outbox {
    /// Adds a control message under this key.
    pub fn control(&mut self, under: KeySlot, message: &Message, to: Path) {
        self.message(under, message, to, 0);
    }

    /// The same in a lane, under its frames' key.
    pub fn control_in(&mut self, lane: u8, message: &Message, to: Path) {
        self.message(KeySlot::Current, message, to, lane);
    }

    fn message(&mut self, under: KeySlot, message: &Message, to: Path, lane: u8) {
        let mut body = Vec::new();
        control::encode(message, &mut body);
        self.command(SendCommand::Control { body, to, under, lane });
    }
}
