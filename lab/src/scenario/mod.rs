//! Scenarios: small worlds of hosts, cables and links, each a file played by `tund-lab run`.
//!
//! A scenario is `lab/scenarios/NAME.toml`, the world and what must hold in it, and `NAME.md`, a page with a drawing. It has phases, and at least one
//! in which something breaks.

mod capture;
mod catalogue;
mod file;
mod measure;
mod rival;
mod source;
mod world;

pub use capture::Capture;
pub use catalogue::{ALL, EXAMPLE, EXERCISES, Entry, Ground, find};
pub use file::{Check, Host, Mistake, Name, Phase, Scenario, Step};
pub use measure::{Bound, Figure, Measured};
pub use rival::{End, Origin, Rival};
pub use source::Source;
pub use world::World;
