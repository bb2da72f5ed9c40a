//! The packets inside the tunnel. Everything here takes bytes that anybody may have written.

pub mod clamp;
pub mod ip;
pub mod too_big;

/// The Internet checksum of these parts, one after the other (RFC 1071); each but the last has an even
/// length.
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u64;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        }
    }
    !fold(sum)
}

/// The checksum after a word that it covers changed from `old` to `new` (RFC 1624, equation 3).
pub fn adjusted(checksum: u16, old: u16, new: u16) -> u16 {
    !fold(u64::from(!checksum) + u64::from(!old) + u64::from(new))
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
