//! The clocks.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::core::clock::Now;

/// Both clocks, now.
pub fn now() -> Now {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now { instant: Instant::now(), wall: u64::try_from(wall.as_micros()).unwrap_or(u64::MAX) }
}
