//! The outward half: seals frames of the device in OpenVPN's format.

use super::fragments::{longest_part, part_of};
use super::lane::{Send, Settings};
use crate::core::lane::{FramesOut, LONGEST, Sink, Train, Transmit};
use crate::core::limits::BUDGET_LEAST;
use crate::core::stats::DropReason;
use crate::crypto::cbc_hmac::{CbcHmac, IvMark, Layout, pad};
use crate::wire::openvpn::{Fragment, Framing, PACKET_ID, PacketId};

/// A sender restarts at this number, long before numbers end.
const SEQ_RENEW: u32 = u32::MAX - (1 << 24);

/// One lane's outward half.
pub struct Outward {
    settings: Settings,
    layout: Layout,
    keys: CbcHmac,
    mark: IvMark,
    framing: Framing,
    /// Time of this end's start; `None`: nothing is sent.
    time: Option<u32>,
    seq: u32,
    /// Number of fragmented packets.
    cut: u8,
    /// The device's frames and their rules.
    pub frames: FramesOut,
    /// Longest datagram that the route carries unfragmented, in bytes.
    budget: usize,
    batch: Batch,
    body: Vec<u8>,
}

#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    train: Train,
    class: u8,
}

impl Outward {
    /// Sends nothing until the link says so.
    pub fn new(settings: Settings) -> Self {
        Self {
            layout: settings.options.layout(),
            keys: settings.sealing(),
            mark: settings.mark(),
            framing: settings.options.framing,
            frames: FramesOut::new(settings.inner.clone(), settings.max_frame, settings.copy_dscp),
            settings,
            time: None,
            seq: 0,
            cut: 0,
            budget: BUDGET_LEAST,
            batch: Batch { bytes: Vec::with_capacity(LONGEST), ..Batch::default() },
            body: Vec::new(),
        }
    }

    /// Whether its numbers are nearly used up.
    pub fn report(&mut self) -> bool {
        self.frames.inner.renew();
        self.seq >= SEQ_RENEW
    }

    /// Carries out the link's decision.
    pub fn handle_command(&mut self, command: Send, sink: &mut impl Sink) {
        if command == Send::Stop {
            self.batch.clear();
        }
        self.flush(sink);
        match command {
            Send::Start(time) => (self.time, self.seq) = (Some(time), 0),
            Send::Framing(framing) => self.framing = framing,
            Send::Payload { payload, to } => {
                let endpoint = self.frames.endpoint.replace(to);
                self.send_payload(&payload, &[], sink);
                self.flush(sink);
                self.frames.endpoint = endpoint;
            }
            Send::Stop => self.time = None,
            Send::Endpoint(endpoint) => self.frames.set_endpoint(Some(endpoint)),
            Send::Agreed(agreed) => self.frames.agreed = agreed,
            Send::Budget(budget) => self.budget = budget,
            Send::Hold(held) => self.frames.inner.hold(held),
        }
    }

    /// Takes a frame of the device, in two consecutive parts (the second may be empty). It may wait until
    /// [`Outward::flush`].
    pub fn handle_frame(&mut self, head: &[u8], tail: &[u8], sink: &mut impl Sink) {
        let Some(class) = self.frames.pass(true, head, tail, sink) else { return };
        if class != self.batch.class {
            self.flush(sink);
            self.batch.class = class;
        }
        self.send_payload(head, tail, sink);
    }

    /// Sends waiting frames.
    pub fn flush(&mut self, sink: &mut impl Sink) {
        if let (Some(to), false) = (self.frames.endpoint, self.batch.train.is_empty()) {
            let Batch { bytes, train: Train { stride, .. }, class } = &mut self.batch;
            self.keys.seal(bytes, *stride);
            sink.transmit(Transmit { bytes, stride: *stride, class: *class, to });
        }
        self.batch.clear();
    }

    /// Numbers, frames and if necessary fragments a payload.
    fn send_payload(&mut self, head: &[u8], tail: &[u8], sink: &mut impl Sink) {
        let mut body = std::mem::take(&mut self.body);
        body.resize(head.len() + tail.len() + self.framing.most(), 0);
        let length = self.framing.write(head, tail, &mut body);
        self.send_body(&body[..length], sink);
        self.body = body;
    }

    fn send_body(&mut self, body: &[u8], sink: &mut impl Sink) {
        if !self.settings.options.fragments {
            return self.add(&[], body, sink);
        }
        let limit = self.settings.fragment.unwrap_or(usize::MAX);
        let longest = longest_part(self.layout.plain(limit));
        if body.len() <= longest {
            return self.add(&Fragment::Whole.emit(), body, sink);
        }
        let Some(size) = part_of(body.len(), longest) else {
            return self.frames.stats.drop(DropReason::TooBig);
        };
        self.cut = self.cut.wrapping_add(1);
        let (id, count) = (self.cut, body.len().div_ceil(size));
        for (number, part) in body.chunks(size).enumerate() {
            // At most 32.
            let number = number as u8;
            let fragment = match usize::from(number) + 1 == count {
                true => Fragment::Last { id, number, size },
                false => Fragment::More { id, number },
            };
            self.add(&fragment.emit(), part, sink);
        }
    }

    /// Adds a datagram to the batch.
    fn add(&mut self, front: &[u8], body: &[u8], sink: &mut impl Sink) {
        let plain = PACKET_ID + front.len() + body.len();
        let total = self.layout.sealed(plain);
        if !self.batch.train.takes(total) {
            self.flush(sink);
        }
        let (Some(time), Some(seq)) = (self.time, self.seq.checked_add(1)) else {
            return self.frames.stats.drop(DropReason::NoPeer);
        };
        self.seq = seq;
        let begin = self.batch.add(total);
        let datagram = &mut self.batch.bytes[begin..];
        let (outer, inner) = datagram.split_at_mut(self.layout.prefix());
        let id = PacketId { seq, time }.emit();
        self.mark.write(id, &mut outer[self.layout.mac..]);
        inner[..PACKET_ID].copy_from_slice(&id);
        inner[PACKET_ID..PACKET_ID + front.len()].copy_from_slice(front);
        inner[PACKET_ID + front.len()..plain].copy_from_slice(body);
        pad(inner, plain);
        self.frames.stats.datagrams_out += 1;
        // A datagram too long for the route is fragmented by IP and sent alone: the kernel does not segment those.
        if self.batch.train.is_full() || total > self.budget {
            self.flush(sink);
        }
    }
}

impl Batch {
    /// Makes room for a datagram; returns its offset.
    fn add(&mut self, length: usize) -> usize {
        let begin = self.train.used;
        self.train.add(length);
        self.bytes.resize(self.train.used, 0);
        begin
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.train = Train::default();
    }
}
