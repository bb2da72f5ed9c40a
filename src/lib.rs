//! tund joins two machines, or two Ethernet segments, over any IP network.
//!
//! The protocol is a separate crate, [`tund_proto`]: it takes `now` and randomness as arguments and owns no file descriptor. Its
//! modules are also modules here, and its front page shows two links in one process.
//!
//! The other *pure* modules are what `--no-default-features` builds:
//!
//! - [`route::plan`]: the steps that configure a device and its routes, and how to undo them
//! - [`privsep::message`]: the messages between the two processes; [`privsep::door`]: which are admitted
//! - [`control::api`] and [`control::metrics`]: what a running link reports, as JSON and as OpenMetrics text
//!
//! The other half (feature `daemon`) is thin input and output around it: `device`, `transport`,
//! `route::netlink`, `engine`, `parent`, `helper`, `cli`, and `sys`, which contains all unsafe code.

#![deny(unsafe_code)]
#![warn(missing_docs)]

pub use tund_proto::{config, core, crypto, packet, wire};

pub mod control;
pub mod privsep;
pub mod route;

#[cfg(feature = "daemon")]
pub mod cli;
#[cfg(feature = "daemon")]
pub mod device;
#[cfg(feature = "daemon")]
pub mod engine;
#[cfg(feature = "daemon")]
pub mod helper;
#[cfg(feature = "daemon")]
pub mod host;
#[cfg(feature = "daemon")]
pub mod parent;
#[cfg(feature = "daemon")]
pub mod preflight;
#[cfg(feature = "daemon")]
pub mod report;
#[cfg(feature = "daemon")]
pub mod sys;
#[cfg(feature = "daemon")]
#[cfg(test)]
mod testing;
#[cfg(feature = "daemon")]
pub mod transport;
