//! Packs frames into bodies.

use std::ops::Range;

use super::{LEAST, LENGTH, OFFSET};

/// A [`Packer`]'s output: a sequence of bodies.
pub trait Bodies {
    /// The current body in its full capacity, at least 64 bytes and constant until the stream ends.
    fn body(&mut self) -> &mut [u8];
    /// Completes the body at `length` bytes; the next call of [`Bodies::body`] returns another.
    fn close(&mut self, length: usize);
}

/// Packs frames into bodies. Every body but the last is filled to capacity.
#[derive(Debug, Clone, Default)]
pub struct Packer {
    /// Bytes written to the current body; 0: none is open.
    filled: usize,
    /// Length of a whole frame, while the body holds only that.
    only: Option<usize>,
}

impl Packer {
    /// Adds a frame, given in consecutive parts. Drops empty frames and those above [`MAX_FRAME`](super::MAX_FRAME).
    pub fn push(&mut self, frame: [&[u8]; 2], bodies: &mut impl Bodies) {
        let mut missing = frame[0].len() + frame[1].len();
        let Some(length) = u16::try_from(missing).ok().filter(|length| *length > 0) else { return };
        if self.filled > 0 && bodies.body().len() - self.filled < LEAST {
            bodies.body()[self.filled..].fill(0);
            self.close(bodies);
        }
        self.only = (self.filled == 0).then_some(missing);
        if self.filled == 0 {
            self.begin(0, bodies);
        }
        self.filled += put(&length.to_be_bytes(), &mut bodies.body()[self.filled..]);
        for mut part in frame {
            while !part.is_empty() {
                if self.filled == bodies.body().len() {
                    self.close(bodies);
                    self.begin(missing, bodies);
                }
                let now = put(part, &mut bodies.body()[self.filled..]);
                (self.filled, missing, part) = (self.filled + now, missing - now, &part[now..]);
            }
        }
    }

    /// Closes the last body.
    pub fn finish(&mut self, bodies: &mut impl Bodies) {
        if self.filled > 0 {
            self.finish_at(self.filled, bodies);
        }
    }

    /// Whether a body is open.
    pub fn is_open(&self) -> bool {
        self.filled > 0
    }

    /// Range of the frame in the open body, if it holds one whole frame only.
    pub fn only_frame(&self) -> Option<Range<usize>> {
        self.only.map(|length| OFFSET + LENGTH..OFFSET + LENGTH + length)
    }

    fn begin(&mut self, missing: usize, bodies: &mut impl Bodies) {
        let missing = u16::try_from(missing).unwrap_or(0);
        self.filled = put(&missing.to_be_bytes(), bodies.body());
    }

    fn close(&mut self, bodies: &mut impl Bodies) {
        let capacity = bodies.body().len();
        self.finish_at(capacity, bodies);
    }

    fn finish_at(&mut self, length: usize, bodies: &mut impl Bodies) {
        bodies.close(length);
        *self = Self::default();
    }
}

/// Copies what fits to the front of `room`; returns its length.
fn put(from: &[u8], room: &mut [u8]) -> usize {
    let now = from.len().min(room.len());
    room[..now].copy_from_slice(&from[..now]);
    now
}
