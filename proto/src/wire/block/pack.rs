//! Frames into bodies.

use std::ops::Range;

use super::{LEAST, LENGTH, OFFSET};

/// Where a [`Packer`] writes: one body after the other.
pub trait Bodies {
    /// The body that is being written, in all its capacity, which is at least 64 bytes and stays the same until
    /// the stream ends.
    fn body(&mut self) -> &mut [u8];
    /// The first `length` bytes of the body are complete; the next call of [`Bodies::body`] gives another.
    fn close(&mut self, length: usize);
}

/// Writes frames into bodies. Every body but the last fills its capacity.
#[derive(Debug, Clone, Default)]
pub struct Packer {
    /// Bytes written into the body; 0: none is begun.
    filled: usize,
    /// Length of the one frame that the body holds whole, while it holds nothing else.
    only: Option<usize>,
}

impl Packer {
    /// Adds a frame, given in parts that follow one another. Empty frames and those above [`MAX_FRAME`](super::MAX_FRAME) are left
    /// out.
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

    /// Ends the last body.
    pub fn finish(&mut self, bodies: &mut impl Bodies) {
        if self.filled > 0 {
            self.finish_at(self.filled, bodies);
        }
    }

    /// Whether a body is begun.
    pub fn is_open(&self) -> bool {
        self.filled > 0
    }

    /// Where in the body that is begun its one frame is, if it holds one whole frame and nothing else.
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

/// Copies as much as fits to the front of `room` and returns how much that is.
fn put(from: &[u8], room: &mut [u8]) -> usize {
    let now = from.len().min(room.len());
    room[..now].copy_from_slice(&from[..now]);
    now
}
