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
