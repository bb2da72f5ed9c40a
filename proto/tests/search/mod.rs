//! Exhaustive search of small worlds: every order of events, up to some depth.
//!
//! A [`World`] says what may happen next and does it. [`search`] explores it breadth first, visits each state once, and
//! returns the shortest path to a violation. States are compared by a digest that leaves out what makes no difference
//! (names of keys, elapsed time). A state is stored as the path to it and recomputed in its turn, so that memory does
//! not limit the depth.
//!
//! ```text
//! cargo test --lib search::                        what an ordinary run searches
//! SEARCH_DEPTH=3 cargo test --release --lib search::   three steps deeper
//! ```

use std::collections::HashSet;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::io::Write as _;

/// A world in one state.
pub trait World: Clone {
    /// An event.
    type Act: Clone;

    /// Returns the possible events, always in the same order.
    fn acts(&self) -> Vec<Self::Act>;

    /// Performs an event.
    ///
    /// # Errors
    /// The violation.
    fn act(&mut self, act: &Self::Act) -> Result<(), String>;

    /// Describes an event in one line.
    fn tell(&self, act: &Self::Act) -> String;

    /// Checks the state as a whole, on a copy of it.
    ///
    /// # Errors
    /// The violation.
    fn check(self) -> Result<(), String>;

    /// Hashes what distinguishes this state from others.
    fn digest(&self, to: &mut impl Hasher);
}

/// The result of a search.
#[derive(Debug)]
pub struct Found {
    /// Distinct states.
    pub states: usize,
    /// Steps taken from them.
    pub steps: usize,
    /// The shortest path to a violation, one line per step.
    pub violation: Option<String>,
}

/// Searches all states within `depth` steps of `start`, plus `SEARCH_DEPTH`.
pub fn search<W: World>(what: &str, start: &W, depth: usize) -> Found {
    let more = std::env::var("SEARCH_DEPTH").ok().and_then(|more| more.parse().ok());
    let depth = depth + more.unwrap_or(0);
    let mut seen = HashSet::from([digest(start)]);
    let mut steps = 0;
    let mut frontier = vec![Vec::new()];
    for _ in 0..depth {
        let mut next = Vec::new();
        for way in frontier {
            let world = at(start, &way);
            for (index, act) in world.acts().iter().enumerate() {
                steps += 1;
                let mut there = world.clone();
                let outcome = there.act(act);
                let is_new = outcome.is_err() || seen.insert(digest(&there));
                let outcome = outcome.and_then(|()| if is_new { there.check() } else { Ok(()) });
                if !is_new {
                    continue;
                }
                let way = [way.as_slice(), &[index as u8]].concat();
                if let Err(violation) = outcome {
                    let violation = Some(format!("{}{violation}", told(start, &way)));
                    return Found { states: seen.len(), steps, violation };
                }
                next.push(way);
            }
        }
        frontier = next;
    }
    let _ = writeln!(std::io::stderr(), "search: {what}: {} states, {steps} steps, {depth} deep", seen.len());
    Found { states: seen.len(), steps, violation: None }
}

/// Returns the state at the end of a path.
fn at<W: World>(start: &W, way: &[u8]) -> W {
    let mut world = start.clone();
    for index in way {
        let acts = world.acts();
        assert_eq!(world.act(&acts[usize::from(*index)]), Ok(()), "a way that was gone before");
    }
    world
}

fn told<W: World>(start: &W, way: &[u8]) -> String {
    let mut world = start.clone();
    let mut text = String::new();
    for index in way {
        let act = world.acts()[usize::from(*index)].clone();
        text.push_str(&format!("{}\n", world.tell(&act)));
        let _ = world.act(&act);
    }
    text
}

fn digest<W: World>(world: &W) -> (u64, u64) {
    let (mut one, mut other) = (DefaultHasher::new(), DefaultHasher::new());
    1_u8.hash(&mut other);
    world.digest(&mut one);
    world.digest(&mut other);
    (one.finish(), other.finish())
}
