//! The search over sessions finds incomplete rules.

use super::{LEFT, Small, search};
use crate::core::search::Found;
use crate::fault::{self, Fault};

fn is_found(fault: Fault, depth: usize, what: &str) {
    fault::inject(Some(fault));
    let Found { states, violation, .. } = search("a fault", &Small::new([true, false], LEFT), depth);
    fault::inject(None);
    let violation = violation.unwrap_or_default();
    assert!(violation.contains(what), "{fault:?} not found in {states} states: {violation}");
}

/// A recording may displace the peer's call, and others.
#[test]
fn rules_that_lack_a_part_are_found_out() {
    is_found(Fault::UnprovenDisplaces, 6, "no session");
    is_found(Fault::NotConfirmed, 6, "what proves nothing changed");
}
