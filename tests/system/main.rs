//! tund's effects on the kernel's network, each test in its own network namespace.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests may fail as tests do")]

mod devices;
mod many;
mod namespace;
mod preflight;
mod routes;
mod udp;
