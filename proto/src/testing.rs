//! What tests, benchmarks and fuzz targets share. It is there with the feature `testing` alone, and no part of the program.

mod dice;

pub use dice::{Dice, Given};
