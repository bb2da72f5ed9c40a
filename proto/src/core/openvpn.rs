//! OpenVPN's static-key mode, for unmodified OpenVPN peers, 2.3 to 2.7.
//!
//! There is no handshake and no hello. Instead there are packet ids and which are new ([`window`]), the peer's starts and
//! which are accepted ([`admission`]), fragments ([`fragments`]), and the text by which the ends compare options
//! ([`options`]).

pub mod admission;
pub mod fragments;
mod inward;
pub mod lane;
pub mod link;
pub mod options;
mod outward;
#[cfg(test)]
mod tests;
pub mod window;
