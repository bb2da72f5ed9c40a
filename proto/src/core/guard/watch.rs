//! The link's view of its lanes' guard reports.

use std::time::Instant;

use super::{Offenders, Rule};
use crate::core::condition::Condition;
use crate::core::limits::REPEAT;

/// Recently broken rules.
#[derive(Debug, Default)]
pub struct Watch {
    said: [Option<Instant>; Rule::ALL.len()],
}

impl Watch {
    /// Returns the conditions to report, each rule at most once a minute.
    pub fn handle_offenders(&mut self, now: Instant, offenders: &Offenders) -> Vec<Condition> {
        let mut news = Vec::new();
        for (rule, mac, vlan) in offenders.iter() {
            let said = &mut self.said[rule as usize];
            if said.is_none_or(|at| now >= at + REPEAT) {
                *said = Some(now);
                news.push(Condition::Guarded { rule, mac, vlan });
            }
        }
        news
    }
}
