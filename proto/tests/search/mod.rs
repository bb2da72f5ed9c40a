//! Small worlds, searched exhaustively: every order of what may happen, up to some depth.
//!
//! A [`World`] says what may happen next and does it; [`search`] goes through all of it breadth first, looks at each state
//! once, and gives the shortest way to a violation. States are told apart by a digest that leaves out what makes no
//! difference (the names of keys, the time that passed). A state is kept as the way to it and made again when its turn
//! comes, so that memory does not bound the depth.
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
    /// Something that may happen.
    type Act: Clone;

    /// What may happen now, always in the same order.
    fn acts(&self) -> Vec<Self::Act>;

    /// Makes it happen.
    ///
    /// # Errors
    /// What must not be.
    fn act(&mut self, act: &Self::Act) -> Result<(), String>;

    /// What that is, in a line for people.
    fn tell(&self, act: &Self::Act) -> String;

    /// Looks at the state as a whole, at the expense of a copy of it.
    ///
    /// # Errors
    /// What must not be.
    fn check(self) -> Result<(), String>;

    /// Writes what makes this state differ from others.
    fn digest(&self, to: &mut impl Hasher);
}

/// What a search came to.
#[derive(Debug)]
pub struct Found {
    /// States that differ.
    pub states: usize,
    /// Steps that were taken from them.
    pub steps: usize,
    /// The shortest way to what must not be, one line for each step.
    pub violation: Option<String>,
}

/// All states that are at most `depth` steps from `start`, or so many more as `SEARCH_DEPTH` says.
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

/// The state to which a way leads.
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
