//! Tests whether bytes are random, one position after another.

/// The statistic of 256 equally likely values has a mean of 255 and a deviation of 22.6; one position of random bytes in a million exceeds this.
const SUSPICIOUS: f64 = 371.0;

/// How many of the first `places` bytes are not random: constant, counting, or of few values.
pub fn telltale(payloads: &[Vec<u8>], places: usize) -> usize {
    (0..places).filter(|place| is_telling(payloads, *place)).count()
}

fn is_telling(payloads: &[Vec<u8>], place: usize) -> bool {
    let mut counts = [0_u32; 256];
    for byte in payloads.iter().filter_map(|payload| payload.get(place)) {
        counts[usize::from(*byte)] += 1;
    }
    let total: u32 = counts.iter().sum();
    let expected = f64::from(total) / 256.0;
    let statistic: f64 = counts.iter().map(|count| (f64::from(*count) - expected).powi(2) / expected).sum();
    total > 0 && (statistic > SUSPICIOUS || is_counting(payloads, place))
}

/// Whether a byte counts up: it takes every value equally often, but predicts the next.
fn is_counting(payloads: &[Vec<u8>], place: usize) -> bool {
    let bytes: Vec<u8> = payloads.iter().filter_map(|payload| payload.get(place)).copied().collect();
    let steps = bytes.windows(2).filter(|pair| matches!(pair, [a, b] if b.wrapping_sub(*a) <= 1)).count();
    // Random bytes do so once in 128 times.
    steps * 16 > bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tund_lab::flood::Noise;

    #[test]
    fn random_bytes_tell_nothing_and_headers_tell() {
        let mut noise = Noise(1);
        let random: Vec<Vec<u8>> = (0..2000).map(|_| noise.bytes(40)).collect();
        assert_eq!(telltale(&random, 32), 0);
        let with_header = |(number, mut bytes): (usize, Vec<u8>)| {
            bytes[0] = 4;
            bytes[8] = number as u8;
            bytes[9] = (number >> 8) as u8;
            bytes
        };
        let tells: Vec<Vec<u8>> = random.into_iter().enumerate().map(with_header).collect();
        assert_eq!(telltale(&tells, 32), 3);
    }

    #[test]
    fn places_that_no_datagram_has_tell_nothing() {
        assert_eq!(telltale(&[], 32), 0);
        let mut noise = Noise(2);
        assert_eq!(telltale(&(0..2000).map(|_| noise.bytes(8)).collect::<Vec<_>>(), 32), 0);
    }
}
