//! The protocol as state machines without I/O: `now` and randomness are arguments.
//!
//! A link has one [`link::Link`] (control: sessions, hello, liveness, endpoint) and a [`lane::Lane`] per worker (the bulk path: seal and
//! open). They share nothing: the link sends lanes [`lane::Command`]s, lanes send the link [`lane::Notice`]s, and the owner of both carries
//! them across.

pub mod bulk;
pub mod clock;
pub mod clones;
pub mod codel;
pub mod condition;
pub mod control;
pub mod fair_queue;
pub mod guard;
pub mod hello;
pub mod idle_timeout;
pub mod inner;
pub mod key_id;
pub mod keylog;
pub mod lane;
pub mod limits;
pub mod link;
pub mod openvpn;
pub mod path;
pub mod pmtud;
pub mod rate;
pub mod remotes;
pub mod replay;
pub mod replay_cache;
#[cfg(test)]
#[path = "../../tests/search/mod.rs"]
pub mod search;
pub mod session;
pub mod settings;
#[cfg(test)]
#[path = "../../tests/sim/mod.rs"]
mod sim;
pub mod sources;
pub mod static_keys;
pub mod stats;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors;
pub mod zoned;
