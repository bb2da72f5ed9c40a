//! Comparisons whose time reveals neither where operands differ nor which of several matched.

use subtle::{Choice, ConstantTimeEq};

/// Whether both are equal. Timing may reveal only the lengths.
pub fn equal(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

/// Whether any of `values` equals `value`.
pub fn is_one_of<const N: usize>(value: &[u8; N], values: &[[u8; N]]) -> bool {
    values.iter().fold(Choice::from(0), |found, other| found | other.ct_eq(value)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_equal_in_every_bit_and_in_length_is_equal() {
        let value = [7; 16];
        assert!(equal(&value, &value));
        assert!(is_one_of(&value, &[[0; 16], value]) && is_one_of(&value, &[value, [0; 16]]));
        assert!(!is_one_of(&value, &[]));
        for bit in 0..128 {
            let mut other = value;
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(!equal(&value, &other) && !is_one_of(&value, &[other, other]), "bit {bit}");
        }
        assert!(!equal(&value, &value[..15]) && !equal(&value[..15], &value));
    }
}
