//! One end of a small world: sessions, and the lane's use of their keys.

use std::collections::BTreeSet;

use super::*;
use crate::core::lane::Key;
use crate::crypto::noise::Statics;
use crate::testing::Dice;

/// A key for opening.
#[derive(Clone)]
pub(super) struct Receive {
    pub(super) slot: u8,
    pub(super) serial: u32,
    pub(super) key: Vec<u8>,
    pub(super) heard: bool,
    pub(super) taken: BTreeSet<u32>,
}

/// A key for sending.
#[derive(Clone)]
pub(super) struct Send {
    pub(super) slot: u8,
    pub(super) key: Vec<u8>,
    pub(super) next: u32,
}

/// One end: the sessions, and the lane's use of their keys.
#[derive(Clone)]
pub(super) struct End {
    pub(super) sessions: Sessions,
    pub(super) random: Dice,
    pub(super) receive: Vec<Receive>,
    pub(super) ready: Vec<(KeySlot, Send)>,
    pub(super) current: Option<Send>,
    pub(super) heard_at: Instant,
}

impl End {
    pub(super) fn new(process: u64, calls: bool, now: Instant) -> Self {
        let mut random = Dice(process);
        let keys = Arc::new(LinkKeys::new(&[7; 32]));
        let suites = vec![Cipher::ChaCha20Poly1305];
        let pattern = Pattern { statics: Statics::None, exchange: Exchange::Hybrid };
        let mut sessions = Sessions::new(keys, pattern, suites, now, &mut random);
        sessions.callers = Callers::forgetful();
        if calls {
            sessions.begin(now);
        }
        let (receive, ready) = (Vec::new(), Vec::new());
        Self { sessions, random, receive, ready, current: None, heard_at: now }
    }

    pub(super) fn obey(&mut self, command: Command) -> Option<Vec<u8>> {
        match command {
            Command::Receive(ReceiveCommand::Accept {
                key: Key::Slot { slot, serial, cipher, key }, ..
            }) => {
                self.receive.retain(|live| live.slot != slot);
                let key = key.lane_bytes(cipher, 0).to_vec();
                self.receive.push(Receive { slot, serial, key, heard: false, taken: BTreeSet::new() });
            }
            Command::Send(SendCommand::Prepare(under, Key::Slot { slot, cipher, key, .. })) => {
                self.ready.retain(|(other, _)| *other != under);
                self.ready.push((under, Send { slot, key: key.lane_bytes(cipher, 0).to_vec(), next: 0 }));
            }
            Command::Send(SendCommand::Switch(under)) => {
                let at = self.ready.iter().position(|(other, _)| *other == under);
                self.current = at.map(|at| self.ready.remove(at).1).or(self.current.take());
            }
            Command::Send(SendCommand::Wipe(KeySlot::Current)) => self.current = None,
            Command::Send(SendCommand::Wipe(under)) => self.ready.retain(|(other, _)| *other != under),
            Command::Receive(ReceiveCommand::Forget(Name::Slot(slot))) => {
                self.receive.retain(|live| live.slot != slot)
            }
            Command::Send(SendCommand::WipeAll) => {
                self.ready.clear();
                self.current = None;
            }
            Command::Receive(ReceiveCommand::WipeAll) => self.receive.clear(),
            Command::Send(SendCommand::Handshake(sent)) => return Some(sent.datagram),
            other => panic!("no command of sessions: {other:?}"),
        }
        None
    }

    /// What an initiation or a retry must not change.
    pub(super) fn established(&self) -> (Option<u8>, Vec<u32>, Option<Vec<u8>>) {
        let live = self.sessions.live.iter().map(|live| live.serial).collect();
        (self.sessions.sending, live, self.current.as_ref().map(|current| current.key.clone()))
    }
}
