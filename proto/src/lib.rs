//! The protocol of tund, a point-to-point tunnel daemon, without input or output.
//!
//! Nothing here owns a file descriptor, a thread or a clock: `now` and random bytes are arguments.
//!
//! - [`config`]: TOML text in, a checked [`config::Config`] or diagnostics with line and column out
//! - [`core`]: the link as a state machine ([`core::link::Link`]) and the bulk path ([`core::lane::Lane`])
//! - [`wire`]: bytes to typed views and back
//! - [`packet`]: frames: flows, checksums, segmentation offload
//! - [`crypto`]: the only place that names a cryptography crate
//!
//! Two ends in one process, handing each other what they send until a frame has crossed:
//!
//! ```
//! use std::sync::Arc;
//! use std::time::{Duration, Instant};
//! use tund_proto::config::{Options, parse};
//! use tund_proto::core::lane::{self, Lane, Notice, Sink};
//! use tund_proto::core::link::{Event, Link};
//! use tund_proto::core::{clock::Now, control::Control, path::Path, settings::LinkSettings};
//! use tund_proto::crypto::{Random, keys::LinkKeys, noise::Statics};
//!
//! struct Counting(u8); // stands for the system's random bytes
//! impl Random for Counting {
//!     fn fill(&mut self, buffer: &mut [u8]) {
//!         buffer.fill_with(|| { self.0 = self.0.wrapping_mul(5).wrapping_add(3); self.0 });
//!     }
//! }
//! #[derive(Default)]
//! struct Out { frames: Vec<Vec<u8>>, datagrams: Vec<Vec<u8>>, notices: Vec<Notice> }
//! impl Sink for Out {
//!     fn frame(&mut self, frame: &[u8]) { self.frames.push(frame.to_vec()) }
//!     fn datagram(&mut self, datagram: &[u8], _: Path) { self.datagrams.push(datagram.to_vec()) }
//!     fn notice(&mut self, notice: Notice) -> bool { self.notices.push(notice); true }
//! }
//!
//! let mut now = Now { instant: Instant::now(), wall: 1_790_000_000_000_000 };
//! let [fri, mon] = ["192.0.2.1:1417", "192.0.2.2:1417"].map(|address| address.parse::<std::net::SocketAddr>().unwrap());
//! let calls = ("fri", "remote = '192.0.2.2:1417'", "address = '10.9.0.1'\npeer = '10.9.0.2'");
//! let waits = ("mon", "listen = 1417", "address = '10.9.0.2'\npeer = '10.9.0.1'");
//! let mut ends = [calls, waits].map(|(name, first, device)| {
//!     let text = format!("{first}\n[key]\nfile = 'static.key'\n[device]\n{device}\n[accept]\nsources = 'any'");
//!     let settings = LinkSettings::from(&parse(name, &text, &Options::new("/")).config.unwrap());
//!     let keys = Arc::new(LinkKeys::new(&[42; 32]));
//!     let lane = Lane::new(lane::Settings::new(&settings, keys.clone(), false));
//!     let random = Counting(name.as_bytes()[0]);
//!     (Link::new(settings, keys, Statics::None, now, random), lane, Out::default())
//! });
//! let frame = [0x45; 100];
//! for _ in 0..50 {
//!     for (at, from, to) in [(0, fri, mon), (1, mon, fri)] {
//!         let (link, lane, out) = &mut ends[at];
//!         if link.poll_timeout().is_some_and(|due| due <= now.instant) { link.handle_timeout(now) }
//!         for notice in std::mem::take(&mut out.notices) { link.handle_notice(now, notice) }
//!         while let Some(event) = link.poll_event() {
//!             match event {
//!                 Event::Resolve => link.handle_resolved(now, &[to.into()]),
//!                 Event::Endpoint(peer) => link.handle_route(now, peer.remote, Some(1500)),
//!                 _ => {}
//!             }
//!         }
//!         while let Some(command) = link.poll_command() { lane.handle_command(now.instant, command, out) }
//!         if at == 0 && link.is_up() { lane.handle_frames(&[&frame], out) }
//!         let sent = std::mem::take(&mut out.datagrams);
//!         let (_, lane, out) = &mut ends[1 - at];
//!         let path = Path { local: Some(to.ip()), ..from.into() };
//!         for mut datagram in sent { lane.handle_datagram(now.instant, path, &mut datagram, out) }
//!     }
//!     now = Now { instant: now.instant + Duration::from_millis(100), wall: now.wall + 100_000 };
//! }
//! assert!(ends.iter().all(|(link, ..)| link.is_up()));
//! assert_eq!(ends[1].2.frames[0], frame);
//! ```

#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod config;
pub mod core;
pub mod crypto;
pub mod packet;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod wire;
