//! tund on real devices, in network namespaces of its own. Needs root, or a user namespace:
//! `unshare -Urnm cargo test --test netns`. Nothing here touches the machine's own network.
//!
//! The tests run in the order of their names, so that files with long ones should come early.
//!
//! Each file draws its topology; `fri` and `mon` are always the two ends of the link.

#![allow(clippy::disallowed_methods, reason = "real processes take real time")]
#![allow(clippy::unwrap_used, reason = "a test stops where something is not as it should be")]

mod activation;
mod adversary;
mod background;
mod bench;
mod bridged;
mod browser;
mod carriers;
mod chaos;
mod containers;
mod decoder;
mod demo;
mod doctor;
mod ending;
mod failures;
mod fallback;
mod flood;
mod front;
mod full;
mod guard;
mod guest;
mod idle;
mod inside;
mod keylog;
mod lanes;
mod loops;
mod many;
mod marks;
mod memory;
mod mending;
mod mix;
mod monitor;
mod names;
mod new;
mod offload;
mod openvpn;
mod operation;
mod parts;
mod paths;
mod privileges;
mod proxies;
mod randomness;
mod reload;
mod returning;
mod rights;
mod roaming;
mod routed;
mod scenarios;
mod scripts;
mod sizes;
mod soak;
mod static_program;
mod superserver;
mod support;
mod systemd;
mod trust;
