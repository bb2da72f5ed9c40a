//! Scenarios: small worlds of hosts, cables and links, each a file that is read aloud by `tund-lab run`.
//!
//! A scenario is `lab/scenarios/NAME.toml`, the world and what must hold in it, and `NAME.md`, a page with a
//! drawing. It goes through phases; every scenario has at least one in which something breaks.

mod capture;
mod catalogue;
mod file;
mod world;

pub use capture::Capture;
pub use catalogue::{ALL, Entry, Ground, find};
pub use file::{Check, Host, Phase, Scenario, Step};
pub use world::World;
