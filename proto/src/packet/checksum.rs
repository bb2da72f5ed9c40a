//! The Internet checksum (RFC 1071).

/// Bytes after which the 32-bit sums are added up, long before they can overflow.
const PART: usize = 64 * 1024;

/// Returns the checksum of the concatenated parts. All but the last have even length.
pub fn checksum(parts: &[&[u8]]) -> u16 {
    !fold(parts.iter().map(|part| sum(part)).sum())
}

/// Updates a checksum after a word that it covers changed from `old` to `new` (RFC 1624, equation 3).
pub fn adjusted(checksum: u16, old: u16, new: u16) -> u16 {
    !fold(u64::from(!checksum) + u64::from(!old) + u64::from(new))
}

/// Sums the 16-bit words of `bytes` without folding to 16 bits; an odd last byte is padded with zero. Sums can be added
/// if all but the last cover an even number of bytes.
#[multiversion::multiversion(targets("x86_64+avx2"))]
pub fn sum(bytes: &[u8]) -> u64 {
    // Native byte order is enough: the ones' complement sum is independent of byte order.
    let mut total = 0;
    for part in bytes.chunks(PART) {
        // Parallel sums compile to vector instructions.
        let mut sums = [0u32; 16];
        let (rows, rest) = part.as_chunks::<32>();
        for row in rows {
            for (sum, pair) in sums.iter_mut().zip(row.as_chunks::<2>().0) {
                *sum += u32::from(u16::from_ne_bytes(*pair));
            }
        }
        total += sums.iter().map(|sum| u64::from(*sum)).sum::<u64>();
        let (pairs, odd) = rest.as_chunks::<2>();
        total += pairs.iter().map(|pair| u64::from(u16::from_ne_bytes(*pair))).sum::<u64>();
        total += odd.iter().map(|byte| u64::from(u16::from_ne_bytes([*byte, 0]))).sum::<u64>();
    }
    u64::from(fold(total).to_be())
}

/// Folds the carries until 16 bits are left.
pub fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn slow(bytes: &[u8]) -> u16 {
        let words =
            bytes.chunks(2).map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0)));
        fold(words.sum())
    }

    #[test]
    fn the_example_of_rfc_1071() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(checksum(&[&bytes]), !0xddf2);
        assert_eq!(checksum(&[&bytes[..4], &bytes[4..]]), !0xddf2);
    }

    #[test]
    fn the_largest_packet_of_the_largest_bytes_does_not_overflow() {
        assert_eq!(checksum(&[&[0xff; 65535]]), !slow(&[0xff; 65535]));
    }

    proptest! {
        #[test]
        fn words_taken_wide_add_up_to_words_taken_one_by_one(
            bytes in prop::collection::vec(any::<u8>(), 0..300), at in 0usize..150,
        ) {
            prop_assert_eq!(fold(sum(&bytes)), slow(&bytes));
            let (head, tail) = bytes.split_at((at * 2).min(bytes.len() & !1));
            prop_assert_eq!(checksum(&[head, tail]), !slow(&bytes));
        }

        #[test]
        fn an_adjusted_checksum_is_the_checksum_anew(words in prop::collection::vec(any::<u16>(), 2..20), new: u16) {
            let bytes = |words: &[u16]| words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<_>>();
            let mut changed = words.clone();
            changed[1] = new;
            let before = checksum(&[&bytes(&words)]);
            let after = checksum(&[&bytes(&changed)]);
            let adjusted = adjusted(before, words[1], new);
            // Zero has two representations, which a verifier treats alike.
            prop_assert!(adjusted == after || !adjusted == 0 && after == 0 || adjusted == 0 && !after == 0);
        }
    }
}
