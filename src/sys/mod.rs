//! All unsafe code of tund, each function small and with a safe signature.
#![allow(unsafe_code)]

mod netlink;
mod tun;

pub use netlink::netlink_explain_errors;
pub use tun::{own_device, plain_frames};
