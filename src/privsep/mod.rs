//! Two processes: the parent keeps the privileges and never reads the network, the engine reads the
//! network and has no privileges.

pub mod message;
