//! OpenVPN's static-key mode: speaking to an unmodified OpenVPN, 2.3 to 2.7.
//!
//! There is no handshake and no hello. What is here instead: which packet ids are new ([`window`]), which starts of the peer
//! are taken ([`admission`]), packets in parts ([`fragments`]), and the text in which both ends compare their options
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
