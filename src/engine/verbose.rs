//! Verb 5: a letter for each datagram and frame, as OpenVPN prints them.

use crate::core::stats::Stats;

/// The difference between two readings of the counters, such as `R×3 w×3`: `R` and `W` are datagrams read and written, `r` and `w` frames
/// read from and written to the device. `None` if there is none.
pub fn letters(before: &Stats, after: &Stats) -> Option<String> {
    let runs = [
        ('R', before.datagrams_in, after.datagrams_in),
        ('w', before.frames_in, after.frames_in),
        ('r', before.frames_out, after.frames_out),
        ('W', before.datagrams_out, after.datagrams_out),
    ];
    let runs: Vec<String> =
        runs.into_iter().filter_map(|(letter, from, to)| run(letter, to.saturating_sub(from))).collect();
    (!runs.is_empty()).then(|| runs.join(" "))
}

fn run(letter: char, count: u64) -> Option<String> {
    match count {
        0 => None,
        1 => Some(letter.to_string()),
        _ => Some(format!("{letter}×{count}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_counted_and_silence_prints_nothing() {
        let before = Stats::default();
        let mut after = before;
        (after.datagrams_in, after.frames_in, after.datagrams_out) = (45, 45, 1);
        assert_eq!(letters(&before, &after).as_deref(), Some("R×45 w×45 W"));
        assert_eq!(letters(&after, &after), None);
    }
}
