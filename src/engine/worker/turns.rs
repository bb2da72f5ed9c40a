//! How a worker divides its time between the peer and whoever else sends to its port.

use std::time::Duration;

/// A turn of strangers while nothing else is to be done.
const IDLE_TURN: Duration = Duration::from_micros(200);
/// Beside it the peer's frames get four times as long.
const SHARE: u32 = 4;

/// The time that strangers have: a fifth where it is contended, and all that is left where it is not.
#[derive(Debug, Default)]
pub struct Turns {
    /// What they took beyond their share.
    debt: Duration,
}

impl Turns {
    /// How long strangers may be served now, after `busy` was spent for the peer; `None`: nothing was there of the peer.
    pub fn begin(&mut self, busy: Option<Duration>) -> Duration {
        let Some(busy) = busy else {
            self.debt = Duration::ZERO;
            return IDLE_TURN;
        };
        let share = busy / SHARE;
        let turn = share.saturating_sub(self.debt);
        self.debt = self.debt.saturating_sub(share);
        turn
    }

    /// They were served for `taken`, of the `turn` that they had.
    pub fn end(&mut self, turn: Duration, taken: Duration) {
        self.debt += taken.saturating_sub(turn);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MICRO: Duration = Duration::from_micros(1);

    #[test]
    fn beside_the_peer_strangers_get_a_fifth_of_the_time_however_long_one_call_takes() {
        for call in [3, 20, 90] {
            for peer in [5, 50, 400] {
                let mut turns = Turns::default();
                let (mut of_peer, mut of_strangers) = (Duration::ZERO, Duration::ZERO);
                for _ in 0..10_000 {
                    of_peer += peer * MICRO;
                    let turn = turns.begin(Some(peer * MICRO));
                    let mut taken = Duration::ZERO;
                    while taken < turn {
                        taken += call * MICRO;
                    }
                    turns.end(turn, taken);
                    of_strangers += taken;
                }
                let share = of_strangers.as_secs_f64() / (of_peer + of_strangers).as_secs_f64();
                assert!((share - 0.2).abs() < 0.005, "{share} with calls of {call} beside turns of {peer}");
            }
        }
    }

    #[test]
    fn without_the_peer_they_get_all_of_it_and_owe_nothing() {
        let mut turns = Turns::default();
        turns.end(Duration::ZERO, 1000 * MICRO);
        assert_eq!(turns.begin(Some(40 * MICRO)), Duration::ZERO);
        assert_eq!(turns.begin(None), IDLE_TURN);
        assert_eq!(turns.begin(Some(40 * MICRO)), 10 * MICRO);
    }
}
