//! The protocol as state machines without input or output: `now` and randomness are arguments.
//!
//! A link has one [`link::Link`] (control: sessions, hello, liveness, endpoint) and one
//! [`lane::Lane`] for each worker (the bulk path: seal and open). They share nothing: the link tells
//! a lane [`lane::Command`]s, a lane tells the link [`lane::Notice`]s, and whoever owns both carries
//! them across.

pub mod caller;
pub mod clock;
pub mod fair;
pub mod hello;
pub mod inner;
pub mod keylog;
pub mod lane;
pub mod limits;
pub mod link;
pub mod mtu;
pub mod pace;
pub mod path;
pub mod replay;
#[cfg(test)]
#[path = "../../tests/search/mod.rs"]
pub mod search;
pub mod seen;
pub mod session;
pub mod settings;
pub mod sid;
#[cfg(test)]
#[path = "../../tests/sim/mod.rs"]
mod sim;
pub mod standing;
pub mod static_keys;
pub mod stats;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors;
