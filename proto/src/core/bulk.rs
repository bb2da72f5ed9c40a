//! One worker's bulk path in the link's format. Only this module tells tund's own format from OpenVPN's.

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

/// Settings of a worker's lane.
#[derive(Clone)]
pub enum Settings {
    /// tund's own format.
    Tund(lane::Settings),
    /// OpenVPN's.
    OpenVpn(openvpn::lane::Settings),
    /// OpenVPN's, until the peer has proved to be tund.
    Both {
        /// For the lane in tund's own format.
        tund: lane::Settings,
        /// For the lane in OpenVPN's.
        openvpn: openvpn::lane::Settings,
    },
}

impl Settings {
    /// Those of a link; `openvpn`: if its peer may be one.
    pub fn new(tund: lane::Settings, openvpn: Option<openvpn::lane::Settings>, upgrade: Upgrade) -> Self {
        match (openvpn, upgrade) {
            (None, _) => Self::Tund(tund),
            (Some(openvpn), Upgrade::Off) => Self::OpenVpn(openvpn),
            (Some(mut openvpn), Upgrade::Auto | Upgrade::Require) => {
                // A change of format does not change where hosts are.
                openvpn.inner.share_hosts(&tund.inner);
                Self::Both { tund, openvpn }
            }
        }
    }

    /// Returns the settings for another lane of the link. OpenVPN's format has only one lane.
    pub fn of_lane(&self, lane: u8) -> Self {
        match self {
            Self::Tund(settings) => Self::Tund(settings.of_lane(lane)),
            Self::OpenVpn(_) | Self::Both { .. } => self.clone(),
        }
    }

    /// Returns the keys that hide the lengths in streams, for the format used there.
    pub fn keys(&self) -> Option<Arc<LinkKeys>> {
        match self {
            Self::Tund(settings) => Some(settings.keys.clone()),
            Self::OpenVpn(_) | Self::Both { .. } => None,
        }
    }

    /// The outermost header of frames.
    pub fn layer(&self) -> Layer {
        match self {
            Self::Tund(settings) => settings.inner.layer(),
            Self::OpenVpn(settings) | Self::Both { openvpn: settings, .. } => settings.inner.layer(),
        }
    }
}

/// A command from the link to a lane in its format.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// tund's own format.
    Tund(lane::Command),
    /// OpenVPN's.
    OpenVpn(openvpn::lane::Command),
    /// With both lanes: whether frames of the device take tund's own.
    Upgraded(bool),
}

impl From<lane::Command> for Command {
    fn from(command: lane::Command) -> Self {
        Self::Tund(command)
    }
}

impl Command {
    /// Whether it is for the outward half.
    pub fn is_outward(&self) -> bool {
        match self {
            Self::Tund(command) => matches!(command, lane::Command::Send(_)),
            Self::OpenVpn(command) => matches!(command, openvpn::lane::Command::Send(_)),
            Self::Upgraded(_) => true,
        }
    }

    /// The lane it is for; `None`: all of them.
    pub fn lane(&self) -> Option<u8> {
        match self {
            Self::Tund(command) => command.lane(),
            // There is only one.
            Self::OpenVpn(_) | Self::Upgraded(_) => Some(0),
        }
    }

    /// The path of the peer's datagrams, if the command sets it.
    pub fn endpoint(&self) -> Option<Path> {
        match self {
            Self::Tund(lane::Command::Receive(ReceiveCommand::Endpoint(path)))
            | Self::OpenVpn(openvpn::lane::Command::Receive(Receive::Endpoint(path))) => Some(*path),
            Self::Tund(_) | Self::OpenVpn(_) | Self::Upgraded(_) => None,
        }
    }

    /// Whether it adds a key for opening datagrams.
    pub fn accepts(&self) -> bool {
        matches!(self, Self::Tund(lane::Command::Receive(ReceiveCommand::Accept { .. })))
    }

    /// Whether frames are admitted, if the command says so.
    pub fn agreed(&self) -> Option<bool> {
        match self {
            Self::Tund(lane::Command::Receive(ReceiveCommand::Agreed(agreed)))
            | Self::OpenVpn(openvpn::lane::Command::Receive(Receive::Agreed(agreed))) => Some(*agreed),
            Self::Tund(_) | Self::OpenVpn(_) | Self::Upgraded(_) => None,
        }
    }
}

/// A lane, in both directions.
pub enum Bulk {
    /// tund's own format.
    Tund(Box<lane::Lane>),
    /// OpenVPN's.
    OpenVpn(Box<openvpn::lane::Lane>),
    /// One of each: either format is accepted.
    Both {
        /// tund's own format.
        tund: Box<lane::Lane>,
        /// OpenVPN's.
        openvpn: Box<openvpn::lane::Lane>,
        /// Whether frames of the device take tund's own.
        upgraded: bool,
    },
}

/// Calls a method that both lanes have. Of two, it is the lane that frames of the device take.
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
    /// A lane without any commands from the link yet.
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

    /// Where datagrams with frames are sent.
    pub fn endpoint(&self) -> Option<Path> {
        of!(self, lane => lane.outward.frames.endpoint)
    }

    /// Counters so far.
    pub fn stats(&self) -> Stats {
        match self {
            Self::Tund(lane) => lane.stats(),
            Self::OpenVpn(lane) => lane.stats(),
            Self::Both { tund, openvpn, .. } => tund.stats().plus(&openvpn.stats()),
        }
    }

    /// Returns what the link must know once a second.
    pub fn report(&mut self, now: Instant) -> Report {
        match self {
            Self::Tund(lane) => lane.report(now),
            Self::OpenVpn(lane) => lane.report(now),
            Self::Both { tund, openvpn, .. } => tund.report(now).with_openvpn(&openvpn.report(now)),
        }
    }

    /// Carries out the link's decision.
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
            // A link speaks its lanes' formats only.
            (Self::Tund(_), Command::OpenVpn(_))
            | (Self::OpenVpn(_), Command::Tund(_))
            | (_, Command::Upgraded(_)) => {}
        }
    }

    /// Drops all keys that a copy of this process may use too.
    pub fn wipe_all(&mut self, sink: &mut impl Sink) {
        if let Self::OpenVpn(lane) | Self::Both { openvpn: lane, .. } = self {
            lane.outward.handle_command(Send::Stop, sink);
        }
        if let Self::Tund(lane) | Self::Both { tund: lane, .. } = self {
            lane.wipe_all(sink);
        }
    }

    /// Sets the time of the frames that follow.
    pub fn set_now(&mut self, now: Instant) {
        of!(self, lane => lane.outward.frames.inner.set_now(now));
    }

    /// Whether the guard lets a frame of the device, or several joined by the kernel, go to the peer.
    pub fn admits(&mut self, frame: &[u8], sink: &mut impl Sink) -> bool {
        of!(self, lane => lane.outward.frames.admits(frame, sink))
    }

    /// Takes a frame of the device, in two consecutive parts. It may wait until [`Bulk::flush`].
    pub fn handle_frame(&mut self, head: &[u8], tail: &[u8], sink: &mut impl Sink) {
        of!(self, lane => lane.outward.handle_frame(head, tail, sink));
    }

    /// Sends waiting frames.
    pub fn flush(&mut self, sink: &mut impl Sink) {
        of!(self, lane => lane.outward.flush(sink));
    }

    /// Opens datagrams received together.
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

/// Tries OpenVPN's format first if the length fits. A datagram whose HMAC is wrong is unchanged and goes to tund's own. Those of other
/// lengths stay together.
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
