//! Stream blocks: frames as a stream of bytes cut into datagrams, after RFC 9347.
//!
//! ```text
//! body   = offset (2) ‖ stream
//! stream = … rest of a frame ‖ { length (2) ‖ frame } … ‖ zero bytes
//! ```
//!
//! `offset` is how many bytes are missing of the frame that an earlier body began; it may exceed this
//! body. A length is never cut: where fewer than 3 bytes are left, and after a length of 0, the rest is
//! padding. The parts of a frame travel under consecutive counters of one key.
//!
//! [`Packer`] writes bodies, [`Reassembler`] reads them.

mod pack;
mod reassemble;

pub use pack::{Bodies, Packer};
pub use reassemble::{Deliver, Drops, Reassembler};

/// How far the newest counter may be ahead of one that a part of a frame still waits for.
pub const MAX_AHEAD: usize = 32;
/// Longest frame that a length can express, in bytes.
pub const MAX_FRAME: usize = 65535;
/// Longest body, in bytes; no UDP datagram carries more.
pub const MAX_BODY: usize = 65535;
/// Bytes before the stream.
const OFFSET: usize = 2;
/// Bytes before each frame.
const LENGTH: usize = 2;
/// A length and one byte: with less room a frame does not begin.
const LEAST: usize = LENGTH + 1;
#[cfg(test)]
mod tests;
