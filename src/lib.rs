//! tund joins two machines, or two Ethernet segments, over any IP network.
//!
//! The crate has two halves. The *pure* half takes `now` and randomness as arguments and owns no file
//! descriptor; it is everything that `--no-default-features` builds:
//!
//! - [`config`]: TOML text in, a checked [`config::Config`] or diagnostics with line and column out
//! - [`core`]: the link as a state machine ([`core::link::Link`]) and the bulk path ([`core::lane::Lane`])
//! - [`wire`]: bytes to typed views and back
//! - [`crypto`]: the only place that names a cryptography crate
//! - [`route::plan`]: the steps that configure a device and its routes, and their undoing
//! - [`privsep::message`]: what the two processes say to each other; [`privsep::door`]: what of it is let in
//! - [`control::api`] and [`control::metrics`]: what a running link tells, as JSON and as OpenMetrics text
//!
//! The other half (feature `daemon`) is thin input and output around it: `device`, `transport`,
//! `route::netlink`, `engine`, `parent`, `helper`, `cli`, and `sys`, which holds all unsafe code.

#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod config;
pub mod control;
pub mod core;
pub mod crypto;
#[cfg(test)]
mod fault;
pub mod packet;
pub mod privsep;
pub mod route;
pub mod wire;

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
