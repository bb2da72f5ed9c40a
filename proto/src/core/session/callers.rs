//! Limits the answers and retries to callers without proof.

use std::time::{Duration, Instant};

use super::Instance;
use crate::core::limits::{CALLERS_NEW, CALLERS_OTHER, CALLERS_TURNS};
use crate::core::rate::RateLimiter;
use crate::core::replay_cache::ReplayCache;

const SECOND: Duration = Duration::from_secs(1);

/// With recordings anybody can call at wire speed, but not as a new instance. So an instance that still has turns does
/// not share the limit with those that had theirs: recordings use up the turns of their instances, then make room.
#[cfg_attr(test, derive(Clone))]
pub struct Callers {
    new: RateLimiter,
    other: RateLimiter,
    served: ReplayCache,
}

impl Default for Callers {
    fn default() -> Self {
        Self {
            new: RateLimiter::new(CALLERS_NEW, SECOND / CALLERS_NEW),
            other: RateLimiter::new(CALLERS_OTHER, SECOND / CALLERS_OTHER),
            served: ReplayCache::default(),
        }
    }
}

impl Callers {
    /// For states that are copied repeatedly: everybody has all turns.
    #[cfg(test)]
    pub fn forgetful() -> Self {
        Self { served: ReplayCache::tiny(), ..Self::default() }
    }

    /// Whether this caller gets a reply.
    pub fn allows(&mut self, now: Instant, instance: Instance) -> bool {
        let turn = (0..CALLERS_TURNS).map(|turn| name(instance, turn));
        if let Some(turn) = turn.into_iter().find(|turn| !self.served.contains(*turn))
            && self.new.allow(now)
        {
            self.served.insert(turn);
            return true;
        }
        self.other.allow(now)
    }
}

/// Instances are random, and only a holder of the key can invent one.
fn name(instance: Instance, turn: u64) -> [u8; 16] {
    let number = u64::from_be_bytes(instance);
    (u128::from(number) << 64 | u128::from(number.wrapping_add(turn))).to_be_bytes()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "a test needs some instant to begin at")]

    use super::*;

    fn instance(number: u64) -> Instance {
        number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()
    }

    #[test]
    fn recordings_use_up_the_turns_of_their_instances_and_then_leave_room() {
        let (mut callers, start) = (Callers::default(), Instant::now());
        let recorded = 400;
        // All of them ten times a second, while their turns last.
        let seconds = recorded * CALLERS_TURNS / u64::from(CALLERS_NEW);
        for tenth in 0..=seconds * 10 {
            let now = start + Duration::from_millis(100) * tenth as u32;
            let served = (1..=recorded).filter(|number| callers.allows(now, instance(*number))).count();
            assert!(served <= (CALLERS_NEW + CALLERS_OTHER) as usize, "{served}");
        }
        let now = start + Duration::from_secs(seconds + 1);
        let served = (1..=recorded).filter(|number| callers.allows(now, instance(*number))).count();
        assert_eq!(served, CALLERS_OTHER as usize, "their turns are over");
        for _ in 0..CALLERS_TURNS {
            assert!(callers.allows(now, instance(recorded + 1)), "and a new one has its own");
        }
        assert!(!callers.allows(now, instance(recorded + 1)));
    }
}
