//! Datagrams that one lane's worker receives for another: a lane without a path of its own shares lane 0's. They are handed over unopened; only that
//! lane's worker opens them.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{self, Receiver, SyncSender};

use crate::core::path::Path;

/// Most batches that wait for a lane; more are dropped, as by a full socket queue.
const WAITING: usize = 32;
/// Most bytes of a batch.
const BATCH: usize = 64 * 1024;

/// Datagrams of one lane that arrived together.
pub struct Strays {
    /// The path they came on.
    pub from: Path,
    /// The ECN codepoint of their IP headers.
    pub ecn: u8,
    /// Length of each in bytes; the last may be shorter.
    pub stride: usize,
    /// The datagrams, back to back.
    pub bytes: Vec<u8>,
}

impl Strays {
    /// Datagrams.
    fn count(&self) -> u64 {
        self.bytes.len().div_ceil(self.stride.max(1)) as u64
    }

    fn takes(&self, datagram: &[u8], from: Path, ecn: u8) -> bool {
        let whole = self.bytes.len().is_multiple_of(self.stride) && datagram.len() <= self.stride;
        whole && self.bytes.len() + datagram.len() <= BATCH && (self.from, self.ecn) == (from, ecn)
    }
}

/// Where a lane's strays go.
struct Lane {
    queue: SyncSender<Strays>,
    wake: OwnedFd,
}

/// The queues from one worker to the link's others.
#[derive(Default)]
pub struct Lanes {
    lanes: Vec<Lane>,
    batch: Option<(u8, Strays)>,
}

impl Lanes {
    /// No lanes yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the next lane, whose worker `wake` wakes; returns the receiving end of its queue.
    ///
    /// # Errors
    /// Those of dup(2).
    pub fn add(&mut self, wake: &OwnedFd) -> io::Result<Receiver<Strays>> {
        let (queue, strays) = mpsc::sync_channel(WAITING);
        self.lanes.push(Lane { queue, wake: wake.as_fd().try_clone_to_owned()? });
        Ok(strays)
    }

    /// Duplicates this for another worker.
    ///
    /// # Errors
    /// Those of dup(2).
    pub fn try_clone(&self) -> io::Result<Self> {
        let clone = |lane: &Lane| Ok(Lane { queue: lane.queue.clone(), wake: lane.wake.try_clone()? });
        Ok(Self { lanes: self.lanes.iter().map(clone).collect::<io::Result<_>>()?, batch: None })
    }

    /// Queues a datagram for that lane until the next [`Lanes::flush`]; returns how many were lost, or `None` if there is no such lane.
    pub fn push(&mut self, lane: u8, datagram: &[u8], from: Path, ecn: u8) -> Option<u64> {
        self.lanes.get(usize::from(lane))?;
        if let Some((of, batch)) = &mut self.batch
            && *of == lane
            && batch.takes(datagram, from, ecn)
        {
            batch.bytes.extend_from_slice(datagram);
            return Some(0);
        }
        let lost = self.flush();
        let mut bytes = Vec::with_capacity(BATCH.min(datagram.len() * 16));
        bytes.extend_from_slice(datagram);
        self.batch = Some((lane, Strays { from, ecn, stride: datagram.len(), bytes }));
        Some(lost)
    }

    /// Hands over what is queued; returns how many were lost.
    pub fn flush(&mut self) -> u64 {
        let Some((lane, batch)) = self.batch.take() else { return 0 };
        let Some(lane) = self.lanes.get(usize::from(lane)) else { return batch.count() };
        match lane.queue.try_send(batch) {
            Ok(()) => {
                // A full counter (EAGAIN) means that it is awake already.
                let _ = rustix::io::write(&lane.wake, &1u64.to_ne_bytes());
                0
            }
            // The end of a worker is noticed elsewhere.
            Err(mpsc::TrySendError::Full(batch) | mpsc::TrySendError::Disconnected(batch)) => batch.count(),
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{EventfdFlags, eventfd};

    use super::*;

    fn path() -> Path {
        "192.0.2.1:7".parse().unwrap()
    }

    #[test]
    fn what_came_together_stays_together_and_a_full_queue_loses_no_more_than_it_must() {
        let wake = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
        let mut lanes = Lanes::new();
        let queues: Vec<_> = (0..2).map(|_| lanes.add(&wake).unwrap()).collect();
        assert_eq!(lanes.push(2, &[1; 9], path(), 0), None, "there is no such lane");
        for (lane, length) in [(1, 9), (1, 9), (1, 5), (1, 5), (0, 5), (1, 5)] {
            assert_eq!(lanes.push(lane, &vec![lane; length], path(), 0), Some(0));
        }
        assert_eq!(lanes.push(1, &[1; 5], path(), 3), Some(0), "marked otherwise");
        assert_eq!(lanes.flush() + lanes.flush(), 0);
        let sizes = |queue: &Receiver<Strays>| -> Vec<_> {
            queue.try_iter().map(|strays| (strays.stride, strays.bytes.len(), strays.ecn)).collect()
        };
        assert_eq!(sizes(&queues[1]), [(9, 23, 0), (5, 5, 0), (5, 5, 0), (5, 5, 3)]);
        assert_eq!(sizes(&queues[0]), [(5, 5, 0)]);

        let mut lost = 0;
        for _ in 0..WAITING + 3 {
            for _ in 0..2 {
                lost += lanes.push(1, &[1; 9], path(), 0).unwrap();
            }
            lost += lanes.flush();
        }
        assert_eq!((lost, sizes(&queues[1]).len()), (6, WAITING));
    }
}
