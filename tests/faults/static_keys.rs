//! Each part of the rule for accepting static key ids is needed.

use super::{LEFT, Left, Rule, Small, is_found, search};
use crate::fault::{self, Fault};

#[test]
fn a_rule_that_lacks_a_part_delivers_twice() {
    for fault in [Fault::TakenFromZero, Fault::TakenAgain, Fault::NamingNotRequired] {
        fault::inject(Some(fault));
        let left = Left { renewals: [0, 0], restarts: [0, 1], ..LEFT };
        let found = search("a part left out", &Small::new(Rule::Named, false, left), 12);
        fault::inject(None);
        is_found(found, "delivered twice");
    }
}
