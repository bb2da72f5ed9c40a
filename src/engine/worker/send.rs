//! Sending: frames are read from the device, queued, and sealed.

use std::io;
use std::thread;
use std::time::Instant;

use rustix::io::Errno;

use super::{TURN, Worker};
use crate::core::bulk::Bulk;
use crate::core::codel::{HELD_TARGET, TARGET};
use crate::core::path::Path;
use crate::core::stats::DropReason;
use crate::engine::lane_io::LaneIo;
use crate::packet::layer::Layer;
use crate::packet::virtio::{self, Virtio};
use crate::packet::{flow, gso, traffic_class};
use crate::transport::Datagrams;

impl<D: Datagrams> Worker<D> {
    /// Seals a turn's worth of queued frames. The rest waits for the other direction's turn, and shares datagrams with earlier ones.
    pub(super) fn seal_frames(&mut self, now: Instant) {
        let endpoint = self.lane.endpoint();
        if self.queue.is_empty() || endpoint.is_some_and(|path| self.port.streams.holds(path)) {
            return;
        }
        self.lane.set_now(now);
        let mut should_drop = self.has_standing_queue(now, endpoint);
        let mut taken = 0;
        while taken < TURN && !endpoint.is_some_and(|path| self.port.streams.holds(path)) {
            let Self { lane, port, layer, queue, .. } = self;
            let Some(length) = queue.pop(|frame, more| {
                take_frame(frame, *layer, more, &mut should_drop, lane, port);
                frame.len()
            }) else {
                break;
            };
            taken += length;
        }
        if self.queue.is_empty() {
            self.lane.flush(&mut self.port);
        }
    }

    /// Whether a queue has stood too long. What a stream holds back is judged by age; old frames are not counted in bytes, as they are no more than
    /// that path takes.
    fn has_standing_queue(&mut self, now: Instant, endpoint: Option<Path>) -> bool {
        let oldest = endpoint.filter(|path| path.stream).and_then(|_| self.queue.oldest());
        let is_old = oldest.is_some_and(|since| now.saturating_duration_since(since) > HELD_TARGET);
        let is_crowded = !is_old && self.queue.bytes() > TARGET;
        self.held.should_drop(now, is_old) | self.crowd.should_drop(now, is_crowded)
    }

    pub(super) fn read_frames(&mut self, now: Instant) -> io::Result<()> {
        let Some(device) = &self.port.device else { return Ok(()) };
        while let Some(room) = self.queue.room() {
            match rustix::io::read(device, &mut *room) {
                Ok(length) => {
                    let frame = room.get(virtio::HEADER..length).unwrap_or_default();
                    let flow = flow::of(frame, self.layer);
                    self.queue.push(now, length, flow);
                }
                // Let others use this processor first, most often programs of the same traffic. If none wants it, the call returns at once.
                Err(Errno::AGAIN) if self.queue.waits() => thread::yield_now(),
                // IO: the device is down for the moment; it says so again when it is up.
                Err(Errno::AGAIN | Errno::INTR | Errno::IO) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// Takes what was read from the device: a frame, or several joined. If the queue must signal congestion, one is marked or dropped: one of several, or
/// of a flow with `more` waiting.
pub(super) fn take_frame(
    read: &mut [u8],
    layer: Layer,
    more: bool,
    should_drop: &mut bool,
    lane: &mut Bulk,
    port: &mut LaneIo<impl Datagrams>,
) {
    let Some((header, packet)) = read.split_first_chunk_mut() else { return };
    let Some(virtio) = Virtio::parse(*header) else { return port.drops.drop(DropReason::Malformed) };
    if !lane.admits(packet, port) {
        return;
    }
    let mut skips = false;
    if *should_drop && (more || virtio.kind != virtio::Kind::Single) {
        *should_drop = false;
        skips = !traffic_class::is_capable(traffic_class::of(packet, layer));
        if skips {
            port.drops.drop(DropReason::QueueFull);
        } else {
            traffic_class::mark(packet, layer, traffic_class::CE);
        }
    }
    let emit = |head: &[u8], tail: &[u8]| {
        if !std::mem::take(&mut skips) {
            lane.handle_frame(head, tail, port);
        }
    };
    if gso::split(virtio, packet, layer, emit).is_err() {
        port.drops.drop(DropReason::Malformed);
    }
}
