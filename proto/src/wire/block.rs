//! Stream blocks: a byte stream of frames, cut into datagrams, after RFC 9347.
//!
//! ```text
//! body   = offset (2) ‖ stream
//! stream = … rest of a frame ‖ { length (2) ‖ frame } … ‖ zero bytes
//! ```
//!
//! `offset` is the number of bytes still missing from a frame begun in an earlier body; it may exceed this body. A
//! length is never split: fewer than 3 remaining bytes, and all after a length of 0, are padding. The parts of a frame
//! have consecutive counters under one key.
//!
//! [`Packer`] writes bodies, [`Reassembler`] reads them.

mod pack;
mod reassemble;

pub use pack::{Bodies, Packer};
pub use reassemble::{Deliver, Drops, Reassembler};

/// How far the newest counter may be ahead of one that a frame still waits for.
pub const MAX_AHEAD: usize = 32;
/// Longest frame that a length can express, in bytes.
pub const MAX_FRAME: usize = 65535;
/// Longest body, in bytes; no UDP datagram carries more.
pub const MAX_BODY: usize = 65535;
/// Length of the offset in bytes.
const OFFSET: usize = 2;
/// Bytes before each frame.
const LENGTH: usize = 2;
/// A length and one byte: a frame does not begin with less room.
const LEAST: usize = LENGTH + 1;
#[cfg(test)]
mod tests;
