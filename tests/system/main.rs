//! What tund does to the kernel's network, each test in a network namespace of its own.

mod devices;
mod namespace;
mod routes;
mod udp;
