//! Fuzz targets as plain functions. Each takes bytes and panics if it finds a fault.
//!
//! `fuzz/README.md` tells how to run them.

mod configuration;
mod datagram;
mod door;
mod guard;
mod handshake;
mod openvpn;
mod pair;
mod proxy;
pub mod reference;
mod script;
mod stream;
mod stream_blocks;
mod super_frames;

pub use configuration::configuration;
pub use datagram::datagram;
pub use door::door;
pub use guard::guard;
pub use handshake::handshake;
pub use openvpn::openvpn;
pub use pair::{key_ids, session};
pub use proxy::proxy;
pub use stream::stream;
pub use stream_blocks::stream_blocks;
pub use super_frames::super_frames;

use serde::{Serialize, de::DeserializeOwned};
use tund::privsep::message::{MAX_MESSAGE, ToEngine, ToParent};
use tund::wire::control::{MAX_PING, decode, encode};

/// A fuzz target.
pub type Target = fn(&[u8]);

/// Every target with the name of its corpus.
pub const TARGETS: [(&str, Target); 14] = [
    ("configuration", configuration),
    ("control", control),
    ("datagram", datagram),
    ("door", door),
    ("guard", guard),
    ("handshake", handshake),
    ("key_ids", key_ids),
    ("openvpn", openvpn),
    ("privsep_message", privsep_message),
    ("proxy", proxy),
    ("session", session),
    ("stream", stream),
    ("stream_blocks", stream_blocks),
    ("super_frames", super_frames),
];

/// Authentic control messages: what is accepted is within bounds and has one encoding.
pub fn control(data: &[u8]) {
    let Ok(Some(message)) = decode(data) else { return };
    let mut again = Vec::new();
    encode(&message, &mut again);
    assert!(again.len() <= MAX_PING);
    assert!(again.len() <= data.len(), "a message has no shorter encoding");
    assert_eq!(decode(&again), Ok(Some(message)));
    if again.len() == data.len() {
        assert_eq!(again, data, "without unknown fields there is one encoding");
    }
}

/// Messages between the two processes, in either direction.
pub fn privsep_message(data: &[u8]) {
    if data.len() <= MAX_MESSAGE {
        survives::<ToParent>(data);
        survives::<ToEngine>(data);
    }
}

/// A decoded message survives a round trip. Bytes are compared, since not every number equals itself.
fn survives<M: Serialize + DeserializeOwned>(data: &[u8]) {
    let Ok((message, _)) = postcard::take_from_bytes::<M>(data) else { return };
    let once = postcard::to_stdvec(&message).unwrap_or_default();
    let again = postcard::from_bytes::<M>(&once).map(|message| postcard::to_stdvec(&message));
    assert_eq!(again, Ok(Ok(once)));
}
