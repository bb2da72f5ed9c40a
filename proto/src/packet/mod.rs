//! The packets inside the tunnel. Everything here takes untrusted bytes.

pub mod announce;
pub mod checksum;
pub mod clamp;
pub mod flow;
pub mod gro;
pub mod gso;
pub mod ip;
pub mod layer;
pub mod too_big;
pub mod traffic_class;
pub mod virtio;

/// Returns the 16-bit word at an offset.
fn word(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_be_bytes)
}
