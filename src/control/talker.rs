//! The top senders shown by `tund status`.

use serde::{Deserialize, Serialize};

use crate::core::guard;
use crate::route::step::Mac;

/// A host among those that sent most.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Talker {
    /// Its MAC address.
    pub mac: String,
    /// Its VLAN; absent if untagged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// Whether it is in this end's segment, not in the peer's.
    pub here: bool,
    /// Frames in the last minute; frames that the kernel joined count as one.
    pub frames: u64,
    /// Bytes of these frames.
    pub bytes: u64,
}

impl From<guard::Talker> for Talker {
    fn from(talker: guard::Talker) -> Self {
        let guard::Talker { mac, vlan, here, frames, bytes } = talker;
        Self { mac: Mac(mac).to_string(), vlan, here, frames, bytes }
    }
}
