//! All unsafe code of tund, each function small and with a safe signature.
#![allow(unsafe_code)]

mod datagram;
mod netlink;
mod option;
mod tun;

pub use datagram::{
    Arrival, queue_errors, receive_datagram, receive_error, report_local_address, send_datagram,
};
pub use netlink::netlink_explain_errors;
pub use tun::{own_device, plain_frames};
