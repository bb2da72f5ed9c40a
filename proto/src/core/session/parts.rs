//! Reassembly of messages too long for the path's datagrams. Few are held, and only from holders of the key.

use std::time::Instant;

use super::{Instance, Token};
use crate::core::limits::ANSWER_KEPT;
use crate::wire::handshake::{Envelope, PARTS};

/// An incomplete message.
#[cfg_attr(test, derive(Clone))]
struct Held {
    instance: Instance,
    seq: u64,
    token: Token,
    since: Instant,
    parts: [Option<Vec<u8>>; PARTS as usize],
    /// Length of its shortest datagram.
    shortest: usize,
}

/// Room for one message.
#[derive(Default)]
#[cfg_attr(test, derive(Clone))]
pub struct Parts(Option<Held>);

impl Parts {
    /// Whether a message of another instance is held that may still be completed.
    pub fn is_taken(&self, now: Instant, by: &Envelope<'_>) -> bool {
        self.0.as_ref().is_some_and(|held| held.instance != by.instance && now < held.since + ANSWER_KEPT)
    }

    /// Takes a part from a datagram of `length` bytes, replacing any other message. Once complete, returns the message and the
    /// length of its shortest datagram.
    pub fn take(&mut self, now: Instant, part: &Envelope<'_>, length: usize) -> Option<(Vec<u8>, usize)> {
        let index = usize::from(part.of.part).checked_sub(1)?;
        let Envelope { instance, seq, token, .. } = *part;
        let held = self.0.take_if(|held| (held.instance, held.seq, held.token) == (instance, seq, token));
        let mut held = held.unwrap_or_else(|| {
            let parts = [const { None }; PARTS as usize];
            Held { instance, seq, token, since: now, parts, shortest: length }
        });
        held.shortest = held.shortest.min(length);
        *held.parts.get_mut(index)? = Some(part.message.to_vec());
        if held.parts.iter().all(Option::is_some) {
            return Some((held.parts.into_iter().flatten().flatten().collect(), held.shortest));
        }
        self.0 = Some(held);
        None
    }

    /// Bytes held.
    #[cfg(test)]
    pub fn held(&self) -> usize {
        self.0.iter().flat_map(|held| held.parts.iter().flatten()).map(Vec::len).sum()
    }
}
