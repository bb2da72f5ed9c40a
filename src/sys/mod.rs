//! The operating system: clocks, random bytes, memory, and all unsafe code of tund, in small functions with safe signatures.
#![allow(unsafe_code)]

#[cfg(test)]
mod attempt;
pub mod clock;
mod datagram;
mod descriptors;
// For proto/benches/secrets.rs.
#[cfg(test)]
mod memcheck;
pub mod memory;
pub mod names;
mod netlink;
mod option;
pub mod process;
pub mod random;
mod ready;
pub mod rights;
mod schedule;
mod tun;

#[cfg(test)]
pub use attempt::attempt;
pub use datagram::{
    Arrival, Departure, join_datagrams, queue_errors, receive_datagram, receive_error, report_local_address,
    report_traffic_class, send_datagrams,
};
pub use descriptors::{empty_standard, pass_nothing_on, passed_descriptors};
pub use netlink::{NetlinkListener, netlink_explain_errors, netlink_filter_dumps};
pub use option::{Credentials, peer_credentials, peer_process, set_unsent_limit, waiting_bytes};
pub use ready::ready;
pub use schedule::set_sched_batch;
pub use tun::{Offload, attach_multi_queue, attach_queue, disable_vnet_header, into_device, set_offload};
