//! The bulk path of one worker, in whatever format the link has: the one place that tells tund's own from OpenVPN's.

use std::sync::Arc;
use std::time::Instant;

use super::lane::{self, Arrived, ReceiveCommand, Report, Sink};
use super::openvpn;
use super::openvpn::lane::{Receive, Send};
use super::path::Path;
use super::stats::Stats;
use crate::config::Upgrade;
use crate::crypto::keys::LinkKeys;
use crate::packet::layer::Layer;

/// What a worker's lane is made of.
#[derive(Clone)]
pub enum Settings {
    /// tund's own format.
    Tund(lane::Settings),
    /// OpenVPN's.
    OpenVpn(openvpn::lane::Settings),
    /// OpenVPN's, until the peer has shown that it is tund.
    Both {
        /// Of the lane in tund's own format.
        tund: lane::Settings,
        /// Of the lane in OpenVPN's.
        openvpn: openvpn::lane::Settings,
    },
}

impl Settings {
    /// Those of a link; `openvpn` is there if its peer is one.
    pub fn new(tund: lane::Settings, openvpn: Option<openvpn::lane::Settings>, upgrade: Upgrade) -> Self {
        match (openvpn, upgrade) {
            (None, _) => Self::Tund(tund),
            (Some(openvpn), Upgrade::Off) => Self::OpenVpn(openvpn),
            (Some(mut openvpn), Upgrade::Auto | Upgrade::Require) => {
                // The hosts stay where they are when the format changes.
                openvpn.inner.share_hosts(&tund.inner);
                Self::Both { tund, openvpn }
            }
        }
    }

    /// Those of another lane of the same link. There is one alone where OpenVPN's format is spoken.
    pub fn of_lane(&self, lane: u8) -> Self {
        match self {
            Self::Tund(settings) => Self::Tund(settings.of_lane(lane)),
            Self::OpenVpn(_) | Self::Both { .. } => self.clone(),
        }
    }

    /// What hides the lengths in streams, in the format that goes over them.
    pub fn keys(&self) -> Option<Arc<LinkKeys>> {
        match self {
            Self::Tund(settings) => Some(settings.keys.clone()),
            Self::OpenVpn(_) | Self::Both { .. } => None,
        }
    }

    /// What frames begin with.
    pub fn layer(&self) -> Layer {
        match self {
            Self::Tund(settings) => settings.inner.layer(),
            Self::OpenVpn(settings) | Self::Both { openvpn: settings, .. } => settings.inner.layer(),
        }
    }
}

/// From the link to a lane in its format.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// tund's own format.
    Tund(lane::Command),
    /// OpenVPN's.
    OpenVpn(openvpn::lane::Command),
    /// Where there are both: which of them the frames of the device take.
    Upgraded(bool),
}

impl From<lane::Command> for Command {
    fn from(command: lane::Command) -> Self {
        Self::Tund(command)
    }
}

impl Command {
    /// Whether it is for the way out.
    pub fn is_outward(&self) -> bool {
        match self {
            Self::Tund(command) => matches!(command, lane::Command::Send(_)),
            Self::OpenVpn(command) => matches!(command, openvpn::lane::Command::Send(_)),
            Self::Upgraded(_) => true,
        }
    }

    /// The lane that it is for; `None`: each of them.
    pub fn lane(&self) -> Option<u8> {
        match self {
            Self::Tund(command) => command.lane(),
            // There is one.
            Self::OpenVpn(_) | Self::Upgraded(_) => Some(0),
        }
    }

    /// Which way the peer's datagrams come, where it says so.
    pub fn endpoint(&self) -> Option<Option<Path>> {
        match self {
            Self::Tund(lane::Command::Receive(ReceiveCommand::Endpoint(path))) => Some(*path),
            Self::OpenVpn(openvpn::lane::Command::Receive(Receive::Endpoint(path))) => Some(Some(*path)),
            Self::Tund(_) | Self::OpenVpn(_) | Self::Upgraded(_) => None,
        }
    }

    /// Whether datagrams are opened under another key from now on.
    pub fn accepts(&self) -> bool {
        matches!(self, Self::Tund(lane::Command::Receive(ReceiveCommand::Accept { .. })))
    }

    /// Whether frames are let in, where it says so.
    pub fn agreed(&self) -> Option<bool> {
        match self {
            Self::Tund(lane::Command::Receive(ReceiveCommand::Agreed(agreed)))
            | Self::OpenVpn(openvpn::lane::Command::Receive(Receive::Agreed(agreed))) => Some(*agreed),
            Self::Tund(_) | Self::OpenVpn(_) | Self::Upgraded(_) => None,
        }
    }
}

/// A lane, both ways.
pub enum Bulk {
    /// tund's own format.
    Tund(Box<lane::Lane>),
    /// OpenVPN's.
    OpenVpn(Box<openvpn::lane::Lane>),
    /// One of each: datagrams are taken in either format.
    Both {
        /// tund's own format.
        tund: Box<lane::Lane>,
        /// OpenVPN's.
        openvpn: Box<openvpn::lane::Lane>,
        /// Whether the frames of the device take tund's own.
        upgraded: bool,
    },
}

/// Both lanes have the same methods; of two it is the one that the frames of the device take.
macro_rules! of {
    ($bulk:expr, $lane:ident => $does:expr) => {
        match $bulk {
            Self::Tund($lane) => $does,
            Self::OpenVpn($lane) => $does,
            Self::Both { tund: $lane, upgraded: true, .. } => $does,
            Self::Both { openvpn: $lane, upgraded: false, .. } => $does,
        }
    };
}

impl Bulk {
    /// A lane to which the link has said nothing yet.
    pub fn new(settings: &Settings) -> Self {
        match settings.clone() {
            Settings::Tund(settings) => Self::Tund(Box::new(lane::Lane::new(settings))),
            Settings::OpenVpn(settings) => Self::OpenVpn(Box::new(openvpn::lane::Lane::new(settings))),
            Settings::Both { tund, openvpn } => Self::Both {
                tund: Box::new(lane::Lane::new(tund)),
                openvpn: Box::new(openvpn::lane::Lane::new(openvpn)),
                upgraded: false,
            },
        }
    }

    /// Where datagrams with frames go.
    pub fn endpoint(&self) -> Option<Path> {
        of!(self, lane => lane.outward.frames.endpoint)
    }

    /// What was counted so far.
    pub fn stats(&self) -> Stats {
        match self {
            Self::Tund(lane) => lane.stats(),
            Self::OpenVpn(lane) => lane.stats(),
            Self::Both { tund, openvpn, .. } => tund.stats().plus(&openvpn.stats()),
        }
    }

    /// What the link must know once a second.
    pub fn report(&mut self, now: Instant) -> Report {
        if let Self::Tund(lane) | Self::Both { tund: lane, .. } = self {
            lane.outward.frames.inner.set_now(now);
            lane.inward.frames.inner.set_now(now);
        }
        if let Self::OpenVpn(lane) | Self::Both { openvpn: lane, .. } = self {
            lane.outward.frames.inner.set_now(now);
            lane.inward.frames.inner.set_now(now);
        }
        match self {
            Self::Tund(lane) => lane.report(),
            Self::OpenVpn(lane) => lane.report(),
            Self::Both { tund, openvpn, .. } => tund.report().with_openvpn(&openvpn.report()),
        }
    }

    /// Carries out what the link decided.
    pub fn handle_command(&mut self, now: Instant, command: Command, sink: &mut impl Sink) {
        if let (Command::Upgraded(to), Self::Both { .. }) = (&command, &mut *self) {
            self.flush(sink);
            if let Self::Both { upgraded, .. } = self {
                *upgraded = *to;
            }
            return;
        }
        match (self, command) {
            (Self::Tund(lane) | Self::Both { tund: lane, .. }, Command::Tund(command)) => {
                lane.handle_command(now, command, sink);
            }
            (Self::OpenVpn(lane) | Self::Both { openvpn: lane, .. }, Command::OpenVpn(command)) => {
                lane.handle_command(now, command, sink);
            }
            // A link speaks the formats of its lanes.
            (Self::Tund(_), Command::OpenVpn(_))
            | (Self::OpenVpn(_), Command::Tund(_))
            | (_, Command::Upgraded(_)) => {}
        }
    }

    /// Drops what this may be a copy of a process to have sent under.
    pub fn wipe_all(&mut self, sink: &mut impl Sink) {
        if let Self::OpenVpn(lane) | Self::Both { openvpn: lane, .. } = self {
            lane.outward.handle_command(Send::Stop, sink);
        }
        if let Self::Tund(lane) | Self::Both { tund: lane, .. } = self {
            lane.wipe_all(sink);
        }
    }

    /// The frames of the device that follow come now.
    pub fn set_now(&mut self, now: Instant) {
        of!(self, lane => lane.outward.frames.inner.set_now(now));
    }

    /// Whether the guard lets a frame of the device, or several that the kernel joined, go to the peer.
    pub fn admits(&mut self, frame: &[u8], sink: &mut impl Sink) -> bool {
        of!(self, lane => lane.outward.frames.admits(frame, sink))
    }

    /// Takes a frame of the device, in two parts that follow one another. It may stay until [`Bulk::flush`].
    pub fn handle_frame(&mut self, head: &[u8], tail: &[u8], sink: &mut impl Sink) {
        of!(self, lane => lane.outward.handle_frame(head, tail, sink));
    }

    /// Sends what is waiting.
    pub fn flush(&mut self, sink: &mut impl Sink) {
        of!(self, lane => lane.outward.flush(sink));
    }

    /// Opens datagrams that came together.
    pub fn handle_datagrams(&mut self, now: Instant, arrived: Arrived<'_>, sink: &mut impl Sink) {
        match self {
            Self::Tund(lane) => lane.inward.handle_datagrams(now, arrived, sink),
            Self::OpenVpn(lane) => lane.inward.handle_datagrams(now, arrived, sink),
            Self::Both { tund, openvpn, .. } => {
                handle_either(tund, openvpn, now, arrived, sink);
            }
        }
    }
}

/// A datagram is of OpenVPN's format if it has one of its lengths and its HMAC is right; what is not is as it came, and tund's own. Those of
/// another length stay together.
fn handle_either(
    tund: &mut lane::Lane,
    openvpn: &mut openvpn::lane::Lane,
    now: Instant,
    arrived: Arrived<'_>,
    sink: &mut impl Sink,
) {
    let Arrived { bytes, stride, ecn, from } = arrived;
    let stride = stride.clamp(1, bytes.len().max(1));
    let together = if openvpn.inward.fits(stride) { 0 } else { bytes.len() / stride * stride };
    let (own, either) = bytes.split_at_mut(together);
    if !own.is_empty() || either.is_empty() {
        tund.inward.handle_datagrams(now, Arrived { bytes: own, stride, ecn, from }, sink);
    }
    for bytes in either.chunks_mut(stride) {
        if !openvpn.inward.handle_datagram(now, Arrived { bytes, stride, ecn, from }, sink) {
            tund.inward.handle_datagrams(now, Arrived { bytes, stride, ecn, from }, sink);
        }
    }
}
