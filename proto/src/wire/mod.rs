//! Conversion between bytes and typed views, without link state or I/O. The only key here hides the lengths in a [`stream`].
//!
//! Input is authentic but not trusted: nothing in this module panics or allocates beyond its stated bounds, whatever the
//! bytes.

pub mod block;
pub mod cbor;
pub mod control;
pub mod datagram;
pub mod handshake;
pub mod openvpn;
pub mod proxy;
pub mod stream;
#[cfg(test)]
pub(crate) mod vectors;

use std::net::IpAddr;

/// An address as bytes, 4 or 16.
fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// Why bytes are not a valid control message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The bytes end inside a value.
    #[error("the message ends inside a value")]
    Truncated,
    /// Bytes follow the message.
    #[error("bytes follow the message")]
    LeftOver,
    /// The message exceeds the limit.
    #[error("the message is longer than {max} bytes", max = control::MAX_CONTROL)]
    TooLong,
    /// An integer or length has leading zero bytes.
    #[error("an integer is not in its shortest form")]
    NotShortest,
    /// A string, array or map has indefinite length.
    #[error("an item has indefinite length")]
    Indefinite,
    /// A negative integer, tag, float, simple or reserved value.
    #[error("a negative integer, tag, float, simple or reserved value")]
    Unsupported,
    /// The keys of a map are not strictly ascending; this also excludes duplicates.
    #[error("the keys of a map are not in ascending order")]
    KeyOrder,
    /// Arrays and maps are nested more than [`cbor::MAX_DEPTH`] deep.
    #[error("arrays and maps lie more than {max} deep", max = cbor::MAX_DEPTH)]
    TooDeep,
    /// A value has the wrong type.
    #[error("a value has the wrong type")]
    WrongType,
    /// A number, length or count is outside its bounds.
    #[error("a value is outside its bounds")]
    OutOfRange,
    /// A text is not UTF-8.
    #[error("a text is not UTF-8")]
    NotUtf8,
    /// A required field is missing.
    #[error("field {0} is missing")]
    Missing(u64),
}
